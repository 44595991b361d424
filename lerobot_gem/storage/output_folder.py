"""Folders that a command writes: never over something else, and datasets complete or not at all.

An output folder is absent or empty. `--overwrite` replaces what the same command wrote, and nothing else. A dataset is
written to a folder beside the wanted one, which is renamed at the end.
"""

import errno
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class OutputDataset:
    """The dataset that a command writes: `--output.*`.

    Attributes:
        root: Its folder, absent or empty unless the command's `overwrite` replaces it; no link, and no mount point.
        repo_id: LeRobot's name of it; None is `local/<name of the folder>`.
    """

    root: Path
    repo_id: str | None = None

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        _require_name(self.root)
        self.repo_id = self.repo_id or f"local/{self.root.name}"


# What every LeRobotDataset has, for `check_output`.
DATASET = "meta/info.json"

# No space left, quota exceeded, file too large for its file system.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_SQLITE = {sqlite3.SQLITE_FULL: errno.ENOSPC}
# What safetensors and tokenizers, which are written in Rust, end the text of their errors with.
_OF_RUST = re.compile(r"\(os error (\d+)\)")


def check_empty(output_dir: Path) -> None:
    """Refuse to write files (`--output_dir`) where something is.

    Raises:
        FileExistsError: It exists and is not an empty folder.
    """
    if _is_taken(output_dir):
        raise FileExistsError(
            f"output_dir={str(output_dir)!r} exists and is not an empty folder: choose another folder, or remove it."
        )


def check_output(root: Path, overwrite: bool, marker: str = DATASET) -> None:
    """Refuse to write where something is, unless it may be replaced.

    Args:
        root: The wanted folder.
        overwrite: Replace it if it holds `marker`.
        marker: A path that every output of the command has.

    Raises:
        FileExistsError: It exists and is not an empty folder, and `overwrite` is off or the command did not write it. Or it is a
            link or a mount point.
        ValueError: It has no name.
    """
    _require_name(root)
    if root.is_symlink() or root.is_mount():
        raise FileExistsError(
            f"{root} is a {'link' if root.is_symlink() else 'mount point'}: expected a folder that may be replaced by the finished one. "
            f"Give a folder inside it, such as {root / 'new'}."
        )
    if not _is_taken(root):
        return
    if not overwrite:
        raise FileExistsError(
            f"{root} exists already and is not an empty folder: choose another folder, or pass --overwrite=true to replace "
            "it."
        )
    if not (root / marker).exists():
        raise FileExistsError(
            f"{root} exists and holds no {marker}: this command did not write it, and it is not replaced. Choose another "
            "folder."
        )


def _require_name(root: Path) -> None:
    """Refuse a folder such as `.`: the finished work gets its name, and grows beside it."""
    if root.name in ("", ".."):
        raise ValueError(
            f"{str(root)!r} is a folder without a name of its own: expected one that the finished folder can get. Give a folder inside it, "
            f"such as {str(root / 'new')!r}."
        )


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


@contextmanager
def complete_or_absent(folder: Path) -> Iterator[Path]:
    """A folder to write a piece of work to, which gets its name when it is complete, and is removed on an error."""
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    with removed_on_error(partial):
        partial.mkdir(parents=True)
        yield partial
    partial.rename(folder)


@contextmanager
def published(root: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside the wanted one to make and write to, which gets its name when it is complete, and is removed on an error.

    Args:
        root: The wanted folder; see `publish`.
        overwrite: Replace it.

    Raises:
        FileExistsError: See `publish`, for which the finished folder is kept.
    """
    writing = root.with_name(f"{root.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    with removed_on_error(writing):
        yield writing
    publish(writing, root, overwrite=overwrite)


def publish(finished: Path, root: Path, *, overwrite: bool) -> None:
    """Give a finished folder its name.

    Args:
        finished: What was written.
        root: The wanted folder, which `check_output` found free or allowed to replace when the work began.
        overwrite: Replace it.

    Raises:
        FileExistsError: Something is there that was not when the work began, and `overwrite` is off.
    """
    if _is_taken(root) and not overwrite:
        raise FileExistsError(
            f"{root} was written by something else meanwhile, and is not replaced. The finished work is in {finished}: move it where "
            "you want it."
        )
    if root.exists():
        shutil.rmtree(root)
    finished.rename(root)


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Remove a folder that is being written if that fails."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def explained_full_disk(folder: Path, advice: str) -> Iterator[None]:
    """Say which disk is full, and what to do."""
    try:
        yield
    except Exception as error:
        number = _errno_of(error)
        if number not in _FULL:
            raise
        raise OSError(number, f"No space left on the disk of {folder}. {advice}") from error


def _errno_of(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, sqlite3.Error):
        return _OF_SQLITE.get(getattr(error, "sqlite_errorcode", -1))
    in_words = _OF_RUST.search(str(error))
    return int(in_words[1]) if in_words else None
