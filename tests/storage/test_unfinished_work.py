"""Work that goes on where it stopped, in one run at a time."""

import errno
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from lerobot_gem.storage import unfinished_work
from lerobot_gem.storage.output_folder import OutputDataset
from lerobot_gem.storage.unfinished_work import begun_or_resumed


@dataclass
class Options:
    output: OutputDataset
    resume: bool = False
    overwrite: bool = False


def work(folder: Path, settings: dict[str, Any], **options: bool) -> AbstractContextManager[None]:
    given = Options(OutputDataset(folder / "out"), **options)
    return begun_or_resumed(given, folder / "out.work", settings, work="import", decided_by="settings")


def test_a_disk_that_is_full_when_work_begins_or_goes_on_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_on(resume: bool = True) -> None:
        with work(tmp_path, {"a": 1}, resume=resume):
            (tmp_path / "out.work" / "begun").touch()

    def full(path: Path, _text: str) -> None:
        path.open("w").close()  # as a full disk leaves it
        raise OSError(errno.ENOSPC, "No space left on device")

    for resume in (False, True):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(Path, "write_text", full)
            go_on(resume)
        assert not (tmp_path / "out.work" / "begun").exists()
    go_on()
    go_on()
    assert (tmp_path / "out.work" / "begun").exists()


def test_work_goes_on_with_the_same_settings_when_told_to(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), work(tmp_path, {"a": 1}):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]
    with pytest.raises(FileExistsError, match="unfinished import.*--resume=true"), work(tmp_path, {"a": 1}):
        pass
    with (
        pytest.raises(ValueError, match="started with other settings"),
        work(tmp_path, {"a": 2}, resume=True),
    ):
        pass
    with work(tmp_path, {"a": 2}, overwrite=True):
        pass


@pytest.fixture
def running(tmp_path: Path) -> Iterator[BaseProcess]:
    """Another process that works in the same folder for a minute."""

    def run() -> None:
        with work(tmp_path, {}):
            (tmp_path / "out.work" / "begun").touch()
            time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "out.work" / "begun").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_a_second_run_is_refused_and_changes_nothing(
    running: BaseProcess, options: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_work, "_PATIENCE", 0.1)
    with (
        pytest.raises(FileExistsError, match="Another run works on the import.*expected one at a time"),
        work(tmp_path, {}, **options),
    ):
        pass
    assert (tmp_path / "out.work" / "begun").exists()


def test_a_run_that_was_killed_keeps_nobody_out(running: BaseProcess, tmp_path: Path) -> None:
    running.kill()
    with work(tmp_path, {}, resume=True):
        assert (tmp_path / "out.work" / "begun").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]
