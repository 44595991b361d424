"""Datasets of one episode, joined."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.gem_jsonl.joining import join_episodes

FEATURES = {
    "observation.images.image": {
        "dtype": "image",
        "shape": (16, 16, 3),
        "names": ["height", "width", "channels"],
    },
    "messages": {"dtype": "string", "shape": (1,), "names": None},
}
LENGTHS, TASKS = (3, 1, 2), ("a", "b", "a")


@pytest.fixture
def episodes(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / f"episode{number}" for number in range(3)]
    random = np.random.default_rng(0)
    for folder, length, task in zip(folders, LENGTHS, TASKS, strict=True):
        dataset = LeRobotDataset.create("local/one", fps=1, features=FEATURES, root=folder, use_videos=False)
        for frame in range(length):
            picture = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            dataset.add_frame(
                {"observation.images.image": picture, "messages": f"{folder.name} {frame}", "task": task}
            )
        dataset.save_episode()
        dataset.finalize()
    return folders


def test_the_same_dataset_as_lerobots_own(episodes: list[Path], tmp_path: Path) -> None:
    join_episodes(episodes, tmp_path / "joined", "local/all", 1, FEATURES)
    aggregate_datasets(["local/one"] * 3, "local/all", roots=episodes, aggr_root=tmp_path / "aggregated")
    joined, expected = (
        LeRobotDataset("local/all", root=tmp_path / name) for name in ("joined", "aggregated")
    )
    assert joined.num_frames == 6 and joined.num_episodes == 3
    assert joined.meta.info.splits == expected.meta.info.splits
    assert joined.meta.tasks.equals(expected.meta.tasks)
    for index in range(6):
        ours, theirs = joined[index], expected[index]
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert np.array_equal(ours[key], theirs[key]), (index, key)
    for column in ("dataset_from_index", "dataset_to_index", "length", "tasks", "data/file_index"):
        assert joined.meta.episodes[column] == expected.meta.episodes[column], column
    for kind, value in expected.meta.stats["observation.images.image"].items():
        np.testing.assert_allclose(joined.meta.stats["observation.images.image"][kind], value, err_msg=kind)
    # LeRobot's own leaves these as they were in the parts.
    for key, largest in {"index": 5, "episode_index": 2, "task_index": 1, "frame_index": 2}.items():
        assert joined.meta.stats[key]["max"].item() == largest, key


def test_files_have_a_limit(episodes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeRobotDatasetMetadata, "data_files_size_in_mb", 0.001)
    join_episodes(episodes, tmp_path / "joined", "local/all", 1, FEATURES)
    joined = LeRobotDataset("local/all", root=tmp_path / "joined")
    assert joined.meta.episodes["data/file_index"] == [0, 1, 2]
    assert [joined[index]["messages"] for index in (0, 3, 5)] == ["episode0 0", "episode1 0", "episode2 1"]
