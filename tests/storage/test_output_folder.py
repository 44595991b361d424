"""Folders that are complete or not there."""

import errno
import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lerobot_gem.storage.output_folder import (
    check_output,
    explained_full_disk,
    publish,
    removed_on_error,
)


def test_nothing_is_replaced_without_being_told(tmp_path: Path) -> None:
    root = tmp_path / "out"
    check_output(root, overwrite=False, marker="info")
    root.mkdir()
    check_output(root, overwrite=False, marker="info")  # empty
    (root / "something").touch()
    with pytest.raises(FileExistsError, match="--overwrite=true"):
        check_output(root, overwrite=False, marker="info")
    with pytest.raises(FileExistsError, match="holds no info"):
        check_output(root, overwrite=True, marker="info")
    (root / "info").touch()
    check_output(root, overwrite=True, marker="info")
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(FileExistsError, match=f"written by something else meanwhile.*is in {new}"):
        publish(new, root, overwrite=False)
    assert new.exists() and (root / "info").exists()
    publish(new, root, overwrite=True)
    assert root.is_dir() and not new.exists() and not (root / "info").exists()


def test_what_is_unfinished_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "unfinished"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), removed_on_error(folder):
        raise KeyboardInterrupt
    assert not folder.exists()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=f"disk of {tmp_path}. Free some") as error,
        explained_full_disk(tmp_path, "Free some."),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.errno == errno.ENOSPC
    with sqlite3.connect(":memory:") as database, pytest.raises(OSError, match="No space left"):
        database.execute("PRAGMA max_page_count = 1")
        with explained_full_disk(tmp_path, ""):
            database.execute("CREATE TABLE full (x)")
    in_rust = "Error while serializing: I/O error: {} (os error {})"
    with pytest.raises(OSError, match="No space left on the disk"), explained_full_disk(tmp_path, ""):
        raise SafetensorError(in_rust.format("No space left on device", errno.ENOSPC))
    with pytest.raises(SafetensorError), explained_full_disk(tmp_path, ""):
        raise SafetensorError(in_rust.format("Permission denied", errno.EACCES))
    with pytest.raises(PermissionError), explained_full_disk(tmp_path, ""):
        raise PermissionError(errno.EACCES, "no")
