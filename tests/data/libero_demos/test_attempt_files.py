"""Attempts on disk: what was recorded comes back, and is complete or absent."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot_gem.data.libero_demos.attempt_files import (
    SCENES_PER_BATCH,
    Attempt,
    Frame,
    Recording,
    read_instruction,
    read_language,
    scenes_file,
    succeeded,
    write_attempt,
)
from lerobot_gem.data.libero_demos.questions.kinds import Question
from lerobot_gem.data.libero_demos.questions.recorder import FrameLanguage
from lerobot_gem.storage import recorded_episodes

IMAGE, DEPTH = "observation.images.image", "observation.images.image_depth"


def _frames(count: int) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [
        {
            IMAGE: rng.integers(0, 255, (8, 8, 3), dtype=np.uint8),
            DEPTH: rng.random((8, 8, 1)).astype(np.float32),
            "observation.state": rng.random(8).astype(np.float32),
            "action": rng.random(7).astype(np.float32),
        }
        for _ in range(count)
    ]


def test_a_demonstration_comes_back(tmp_path: Path) -> None:
    frames, attempt = _frames(12), Attempt(3, 7)
    write_attempt(attempt, Recording(frames, None), tmp_path)
    folder = tmp_path / "task03_attempt000007"
    assert succeeded(folder) and [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert {path.name.removesuffix(".npy") for path in folder.iterdir()} == frames[0].keys()
    np.testing.assert_array_equal(np.load(folder / "action.npy"), [frame["action"] for frame in frames])


def test_scenes_and_what_can_be_said_about_them_come_back(tmp_path: Path) -> None:
    frames, batch = _frames(2), Attempt(3, 7, scenes=2)
    language = [
        FrameLanguage("Lift the milk.", [Question("point", IMAGE, "Where?", "There.")]),
        FrameLanguage("Lift the milk.", []),
    ]
    write_attempt(batch, Recording(frames, language), tmp_path)
    folder = tmp_path / "task03_frames000007_of2"
    assert succeeded(folder) and read_language(folder) == language
    table = pq.read_table(scenes_file(folder))
    assert set(table.column_names) == set(frames[0])
    np.testing.assert_array_equal(np.stack(table["action"].to_numpy()), [frame["action"] for frame in frames])


def test_an_instruction_of_its_own_comes_back(tmp_path: Path) -> None:
    write_attempt(Attempt(3, 7), Recording(_frames(1), None, "pick up the milk"), tmp_path)
    write_attempt(Attempt(3, 8), Recording(_frames(1), None), tmp_path)
    assert read_instruction(tmp_path / Attempt(3, 7).name) == "pick up the milk"
    assert read_instruction(tmp_path / Attempt(3, 8).name) is None


def test_a_full_batch_and_a_smaller_one_are_different_pieces_of_work() -> None:
    assert Attempt(3, 7, SCENES_PER_BATCH).name == "task03_frames000007"
    assert Attempt(3, 7, SCENES_PER_BATCH - 1).name == "task03_frames000007_of49"


def test_a_failure_is_remembered(tmp_path: Path) -> None:
    write_attempt(Attempt(0, 0), None, tmp_path)
    assert (tmp_path / Attempt(0, 0).name).is_dir() and not succeeded(tmp_path / Attempt(0, 0).name)


def test_half_an_attempt_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(image: np.ndarray) -> bytes:
        raise KeyboardInterrupt

    attempt, recording = Attempt(0, 0), Recording(_frames(1), None)
    with monkeypatch.context() as patch:
        patch.setattr(recorded_episodes, "encode", fails)
        with pytest.raises(KeyboardInterrupt):
            write_attempt(attempt, recording, tmp_path)
    assert not (tmp_path / attempt.name).exists()
    write_attempt(attempt, recording, tmp_path)
    assert succeeded(tmp_path / attempt.name)
