"""A rollout with real-time chunking whose chunks fail ends with the error, not with exit code 0.

LeRobot asks for chunks in a thread of its own. What goes wrong there (no task text, a camera that is missing) it logs, tries
again ten times, and then lets the command end as if all were well; no caller of ours is left to raise the error to. So
the error is taken from LeRobot's log, and raised when the process ends, after LeRobot has parked the arm.
"""

import atexit
import logging
import os
import sys

_LOGGER = "lerobot.rollout.inference.rtc"


class FailedChunks(logging.Handler):
    """Remembers why the last chunk failed.

    Attributes:
        reason: The error; None while chunks succeed.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reason: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        for argument in arguments:
            if isinstance(argument, BaseException):
                self.reason = argument

    def succeeded(self) -> None:
        """Forget the error: a chunk came."""
        self.reason = None

    def end(self) -> None:
        """End the process with the error, if there is one."""
        if self.reason is None:
            return
        logging.shutdown()
        sys.stdout.flush()
        print(f"error: the policy gave the robot no more actions: {self.reason}", file=sys.stderr, flush=True)
        os._exit(1)  # an exception here would not change the exit code


failed_chunks = FailedChunks()


def watch_chunks() -> None:
    """Let the process end with the error if the last chunk of a rollout failed. Call it as often as you like."""
    rtc = logging.getLogger(_LOGGER)
    if failed_chunks not in rtc.handlers:
        rtc.addHandler(failed_chunks)
        atexit.register(failed_chunks.end)
