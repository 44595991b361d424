"""Folders that are complete or not there."""

import errno
import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lerobot_gem.storage.output_folder import (
    OutputDataset,
    check_output,
    complete_or_absent,
    explained_full_disk,
    publish,
    published,
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


def test_what_can_not_be_replaced_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk")
    for target in (tmp_path / "disk", tmp_path / "nowhere"):
        link.unlink()
        link.symlink_to(target)
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match=f"link is a link: .*such as {link}/new"):
                check_output(link, overwrite)
    check_output(link / "new", overwrite=False)
    assert link.is_symlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_mount", lambda path: path.name == "disk")
        with pytest.raises(FileExistsError, match="disk is a mount point: .*Give a folder inside it"):
            check_output(tmp_path / "disk", overwrite=False)
        check_output(tmp_path / "disk" / "new", overwrite=False)


@pytest.mark.parametrize(("root", "inside"), [(".", "new"), ("..", "../new"), ("/", "/new")])
def test_a_folder_without_a_name_is_refused(root: str, inside: str) -> None:
    with pytest.raises(ValueError, match=f"without a name of its own: .* such as '{inside}'"):
        OutputDataset(Path(root))
    with pytest.raises(ValueError, match="without a name of its own"):
        check_output(Path(root), overwrite=True)


def test_what_is_unfinished_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "unfinished"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), removed_on_error(folder):
        raise KeyboardInterrupt
    assert not folder.exists()


def test_a_folder_is_published_when_it_is_complete(tmp_path: Path) -> None:
    root = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), published(root, overwrite=False) as writing:
        writing.mkdir()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    writing.mkdir()
    (writing / "left").touch()  # by a command that was killed
    for content, overwrite in (("one", False), ("two", True)):
        with published(root, overwrite=overwrite) as writing:
            writing.mkdir()
            (writing / "file").write_text(content)
            assert not root.exists() or overwrite
        assert [path.name for path in root.iterdir()] == ["file"] and (root / "file").read_text() == content
    # What something else wrote meanwhile stays, and so does the finished work.
    with (
        pytest.raises(FileExistsError, match=f"The finished work is in {writing}"),
        published(root, overwrite=False) as writing,
    ):
        writing.mkdir()
    assert writing.exists() and (root / "file").read_text() == "two"


def test_a_piece_of_work_is_complete_or_absent(tmp_path: Path) -> None:
    folder = tmp_path / "pieces" / "one"
    with pytest.raises(OSError, match="full"), complete_or_absent(folder) as partial:
        (partial / "file").touch()
        raise OSError("full")
    assert not list(folder.parent.iterdir())
    partial.mkdir()
    (partial / "left").touch()  # by a process that was killed
    with complete_or_absent(folder) as partial:
        (partial / "file").touch()
        assert not folder.exists()
    assert list(folder.parent.rglob("*")) == [folder, folder / "file"]


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
