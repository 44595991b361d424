"""That a process ends with the error of the last chunk, whatever LeRobot's exit code would be."""

import subprocess
import sys

import pytest

from lerobot_gem.inference.failed_chunks import FailedChunks

LOG = 'log.error("RTC inference error (%d/%d): %s", 1, 10, ValueError("No task text"))'


def logged(*arguments: object) -> FailedChunks:
    import logging

    handler = FailedChunks()
    handler.handle(logging.LogRecord("rtc", logging.ERROR, "", 0, "", arguments, None))
    return handler


def test_the_error_is_taken_from_the_log():
    error = ValueError("No task text")
    assert logged(1, 10, error).reason is error
    assert logged("text alone").reason is None


def test_a_chunk_that_comes_is_no_failure():
    failed = logged(ValueError("once"))
    assert failed.reason is not None
    failed.succeeded()
    assert failed.reason is None
    failed.end()  # ends nothing


@pytest.mark.slow
@pytest.mark.parametrize(("then", "code"), [("", 1), ("; failed_chunks.succeeded()", 0)])
def test_the_process_ends_with_it(then: str, code: int):
    program = (
        "import logging; from lerobot_gem.inference.failed_chunks import failed_chunks, watch_chunks; "
        f"watch_chunks(); watch_chunks(); log = logging.getLogger('lerobot.rollout.inference.rtc'); {LOG}{then}; print('done')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == code
    assert result.stdout == "done\n"
    assert ("error: the policy gave the robot no more actions: No task text\n" in result.stderr) == bool(code)
