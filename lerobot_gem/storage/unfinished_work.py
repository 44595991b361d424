"""Long work that keeps its finished pieces in a folder beside its output, so that it can go on after an interruption.

One command at a time works on such a folder. The lock that sees to this is the system's, and ends with the process, however that ends.
So it does not see jobs of Slurm, which go on when the command that submitted them has ended.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from lerobot_gem.storage.output_folder import OutputDataset, check_output

# Seconds: the processes of a run that was killed notice it within one.
_PATIENCE = 3


class ResumeOptions(Protocol):
    """What a command's options say of its unfinished work.

    Attributes:
        output: The dataset that it makes.
        resume: Go on with what is there.
        overwrite: Delete what is there, and replace the dataset.
    """

    output: OutputDataset
    resume: bool
    overwrite: bool


def check_unfinished(staging: Path, resume: bool, work: str) -> None:
    """Refuse to continue unfinished work unless told to.

    Args:
        staging: The folder that keeps it.
        resume: Continue what is there.
        work: What is kept, for messages: "import".

    Raises:
        FileExistsError: There is unfinished work, and `resume` is off.
    """
    if staging.exists() and not resume:
        raise FileExistsError(
            f"{staging} holds an unfinished {work}. Pass --resume=true to continue it, or --overwrite=true to start "
            "again."
        )


@contextmanager
def begun_or_resumed(
    options: ResumeOptions, staging: Path, settings: dict[str, Any], *, work: str, decided_by: str
) -> Iterator[None]:
    """Make the folder that keeps finished pieces of work, or check that this run may continue it, and keep other runs out.

    Args:
        options: Of the command.
        staging: The folder.
        settings: What decides the result; kept in it.
        work: What is kept, for messages: "import".
        decided_by: What `settings` are, for messages: "settings".

    Raises:
        FileExistsError: Another run works in the folder. Or something is at `output.root` that may not be replaced (`check_output`).
            Or there is unfinished work, and neither `resume` nor `overwrite` is set.
        ValueError: It was started with other settings.
    """
    with _alone(staging, work):
        check_output(options.output.root, options.overwrite)
        if options.overwrite:
            shutil.rmtree(staging, ignore_errors=True)
        check_unfinished(staging, options.resume, work)
        _keep_settings(staging, settings, work, decided_by)
        yield


@contextmanager
def _alone(staging: Path, work: str) -> Iterator[None]:
    file = staging.with_name(f".{staging.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise FileExistsError(
            f"Another run works on the {work} in {staging}: expected one at a time. Wait until it is done, or stop it and pass "
            "--resume=true. For another output, choose another folder."
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _keep_settings(staging: Path, settings: dict[str, Any], work: str, decided_by: str) -> None:
    file, content = staging / "settings.json", json.dumps(settings, indent=1)
    if file.exists() and file.read_text() != content:
        raise ValueError(
            f"The {work} in {staging} was started with other {decided_by}:\n{file.read_text()}\nbut now:\n{content}\n"
            "Resume with the same ones, or pass --overwrite=true to start again."
        )
    staging.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        # Written whole or not at all: a full disk would leave a file that no continuation fits.
        unfinished = staging / ".settings.json"
        unfinished.write_text(content)
        unfinished.rename(file)
