"""What becomes of a damaged file: it loads, or it ends with a clear error. Never a crash, a hang, or memory without end."""

import resource
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from draccus.utils import DraccusException
from safetensors import SafetensorError

SECONDS = 10
MORE_BYTES = 2 * 2**30
# Errors that our commands, LeRobot's parser and safetensors end with where a file is at fault.
CLEAR = (ValueError, OSError, DraccusException, SafetensorError)
# What LeRobot says by itself of a step that it does not know, and Python of JSON that LeRobot hands it.
LEROBOTS = (ImportError, RecursionError)
LONGEST_MESSAGE = 2_000


class HangError(BaseException):
    """A file took too long."""


@dataclass
class Outcomes:
    """What became of all mutations.

    Attributes:
        counts: "loads", or the type of the error, or the reason that a record is skipped for -> how often.
        bad: What is none of these, with where it came from.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.counts.total() + len(self.bad)

    def observe(self, load: Callable[[], Any], what: str) -> Any:
        """Load a damaged file and count what comes of it; what was loaded, or None."""
        signal.signal(signal.SIGPROF, _hang)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of CPU: a busy machine is no hang
        try:
            loaded = load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            message = str(error)
            if not isinstance(error, CLEAR) and not (
                isinstance(error, LEROBOTS) and _raised_by(error) == "lerobot"
            ):
                self._refuse(error, what)
            elif not message.strip() or (
                len(message) > LONGEST_MESSAGE and _raised_by(error) == "lerobot_gem"
            ):
                self._refuse(error, f"{what}: {len(message)} characters of message")
            else:
                self.counts[type(error).__name__] += 1
            return None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.counts["loads"] += 1
        return loaded

    def _refuse(self, error: BaseException, what: str) -> None:
        places = traceback.extract_tb(error.__traceback__)
        where = " < ".join(
            f"{'/'.join(place.filename.split('/')[-2:])}:{place.lineno}" for place in places[:-6:-1]
        )
        self.bad.append(f"{what}: {type(error).__name__}: {str(error)[:150]!r} at {where}")


def _raised_by(error: BaseException) -> str:
    """The package, of LeRobot's and ours, that the error came from or through last."""
    for place in reversed(traceback.extract_tb(error.__traceback__)):
        for package in ("lerobot_gem", "lerobot"):
            if f"/{package}/" in place.filename:
                return package
    return ""


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process have no more than `MORE_BYTES` beyond what it has."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise HangError(f"took more than {SECONDS} s of CPU time")
