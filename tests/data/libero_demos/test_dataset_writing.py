"""The dataset of attempts that are on disk, without a simulator."""

import json
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.libero_demos.attempt_files import (
    SCENES_PER_BATCH,
    Attempt,
    Frame,
    Recording,
    write_attempt,
)
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.dataset_writing import (
    StoredAttempt,
    TaskReport,
    dataset_features,
    write_dataset,
)
from lerobot_gem.storage.output_folder import OutputDataset

SIZE, LENGTH = 16, 4


def _frames(config: LiberoDemosConfig, attempt: Attempt) -> list[Frame]:
    rng = np.random.default_rng([attempt.task_id, attempt.number, attempt.scenes])
    frames = []
    for _ in range(attempt.scenes or LENGTH):
        frame: Frame = {}
        for key, feature in dataset_features(SIZE, SIZE, config.depth).items():
            if feature["shape"][-1] == 3:
                frame[key] = rng.integers(0, 255, feature["shape"], dtype=np.uint8)
            else:
                frame[key] = rng.random(feature["shape"]).astype(np.float32)
        frames.append(frame)
    return frames


def _write(root: Path, config: LiberoDemosConfig, attempts: list[Attempt]) -> list[Frame]:
    """Write a dataset; returns the frames that belong to it, in order."""
    staging = root.with_name("staging")
    staging.mkdir()
    stored, frames = [], []
    for attempt in attempts:
        recorded = _frames(config, attempt)
        write_attempt(attempt, Recording(recorded, None), staging)
        stored.append(StoredAttempt(attempt, staging / attempt.name, f"task {attempt.task_id}"))
        frames += recorded
    write_dataset(config, stored, [TaskReport(0, "task 0", 1, 2)])
    return frames


def test_demonstrations_and_scenes_in_the_order_of_the_attempts(tmp_path: Path) -> None:
    root = tmp_path / "set"
    config = LiberoDemosConfig(
        OutputDataset(root), image_size=SIZE, fps=5, scenes_per_task=SCENES_PER_BATCH + 2
    )
    attempts = [Attempt(0, 1), Attempt(0, 0, SCENES_PER_BATCH), Attempt(0, 1, 2), Attempt(4, 0)]
    frames = _write(root, config, attempts)
    dataset = LeRobotDataset("local/set", root=root, depth_output_unit="m")
    lengths = [episode["length"] for episode in dataset.meta.episodes]
    assert lengths == [LENGTH, *[1] * (SCENES_PER_BATCH + 2), LENGTH]
    assert len(dataset) == len(frames)
    for index in (0, LENGTH - 1, LENGTH, LENGTH + SCENES_PER_BATCH + 1, len(frames) - 1):
        item = dataset[index]
        for key, value in frames[index].items():
            stored = item[key].numpy()
            if value.ndim == 3:
                stored = stored.transpose(1, 2, 0) * (255 if value.dtype == np.uint8 else 1)
            np.testing.assert_allclose(stored, value, atol=1e-4, err_msg=key)
    assert [dataset[index]["task"] for index in (0, LENGTH, len(frames) - 1)] == [
        "task 0",
        "task 0",
        "task 4",
    ]
    report = json.loads((root / "collection.json").read_text())
    assert report["tasks"] == [{"task_id": 0, "instruction": "task 0", "successes": 1, "attempts": 2}]
    assert report["settings"] == config.content()


def test_depth_can_be_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    config = LiberoDemosConfig(OutputDataset(root), image_size=SIZE, fps=5, depth=False)
    _write(root, config, [Attempt(0, 0)])
    assert not LeRobotDataset("local/set", root=root).meta.depth_keys


def test_nothing_is_left_of_a_dataset_that_could_not_be_written(tmp_path: Path) -> None:
    root = tmp_path / "set"
    config = LiberoDemosConfig(OutputDataset(root), image_size=SIZE, fps=5)
    gone = StoredAttempt(Attempt(0, 0), tmp_path / "gone", "task 0")
    with pytest.raises(FileNotFoundError):
        write_dataset(config, [gone], [])
    assert not list(tmp_path.iterdir())
