"""Folders that a command writes: complete or not there, and never over something else.

All is written to a folder beside the wanted one, which is renamed at the end.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# No space left, quota exceeded, file too large for its file system.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_output(root: Path, overwrite: bool, marker: str) -> None:
    """Refuse to write where something is.

    Args:
        root: The wanted folder.
        overwrite: Replace it if it holds `marker`, a path that every output of this kind has.
        marker: See there.

    Raises:
        FileExistsError: Something is there, and `overwrite` is off, or it is of another kind.
    """
    if not root.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{root} exists already. Choose another folder, or pass --overwrite=true to replace it."
        )
    if not (root / marker).exists():
        raise FileExistsError(
            f"{root} exists and holds no {marker}: it is something else than this command writes, and is not replaced. Choose "
            "another folder."
        )


def publish(finished: Path, root: Path) -> None:
    """Give a finished folder its name, in place of what `check_output` allowed to replace."""
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
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, f"No space left on the disk of {folder}. {advice}") from error
