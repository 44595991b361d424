"""Splitting episodes into frames, on a data set made of numbers."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.single_frames import split_into_frames

_LENGTHS = (3, 4, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    features = {
        "observation.images.image": {"dtype": "image", "shape": (8, 8, 3), "names": ["h", "w", "c"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    }
    root = tmp_path / "set"
    dataset = LeRobotDataset.create("local/split", fps=5, features=features, root=root, use_videos=False)
    value = 0
    for episode, length in enumerate(_LENGTHS):
        for _ in range(length):
            picture = np.full((8, 8, 3), value, np.uint8)
            action = np.array([value, -value], np.float32)
            dataset.add_frame({"observation.images.image": picture, "action": action, "task": f"t{episode}"})
            value += 1
        dataset.save_episode()
    dataset.finalize()
    return root


def _load(root: Path, **kwargs) -> LeRobotDataset:
    return LeRobotDataset("local/split", root=root, **kwargs)


def test_frames_become_episodes_and_others_stay(root: Path) -> None:
    split_into_frames(root, [1])
    dataset = _load(root, delta_timestamps={"action": [0.0, 0.2, 0.4]})
    assert dataset.num_episodes == 6 and dataset.num_frames == 9
    expected_episode = [0, 0, 0, 1, 2, 3, 4, 5, 5]
    expected_frame = [0, 1, 2, 0, 0, 0, 0, 0, 1]
    for index in range(9):
        item = dataset[index]
        assert int(item["episode_index"]) == expected_episode[index]
        assert int(item["frame_index"]) == expected_frame[index]
        assert float(item["timestamp"]) == pytest.approx(expected_frame[index] / 5)
        assert int(item["index"]) == index
        assert float(item["action"][0, 0]) == index
        assert round(float(item["observation.images.image"].mean()) * 255) == index
        assert item["task"] == f"t{[0, 1, 2][(index > 2) + (index > 6)]}"
    assert dataset[3]["action_is_pad"].tolist() == [False, True, True]
    assert dataset[7]["action_is_pad"].tolist() == [False, False, True]


def test_metadata_agrees_with_the_data(root: Path) -> None:
    before = _load(root).meta.stats
    split_into_frames(root, [0, 2])
    meta = _load(root).meta
    assert meta.info.splits == {"train": "0:6"}
    starts = [episode["dataset_from_index"] for episode in meta.episodes]
    ends = [episode["dataset_to_index"] for episode in meta.episodes]
    assert starts == [0, 1, 2, 3, 7, 8] and ends == [1, 2, 3, 7, 8, 9]
    np.testing.assert_allclose(meta.stats["action"]["mean"], before["action"]["mean"])
    assert meta.stats["frame_index"]["max"][0] == 3
    assert meta.stats["timestamp"]["max"][0] == pytest.approx(0.6)
    assert meta.stats["episode_index"]["max"][0] == 5


def test_a_choice_of_split_episodes_can_be_loaded_and_merged(root: Path, tmp_path: Path) -> None:
    from lerobot.datasets.aggregate import aggregate_datasets

    split_into_frames(root, [1])
    chosen = _load(root, episodes=[2, 5])
    assert [float(chosen[i]["action"][0]) for i in range(3)] == [4, 7, 8]
    aggregate_datasets(["local/split"] * 2, "local/both", roots=[root] * 2, aggr_root=tmp_path / "both")
    both = LeRobotDataset("local/both", root=tmp_path / "both")
    assert both.num_episodes == 12 and both.num_frames == 18
    assert int(both[17]["episode_index"]) == 11


def test_nothing_to_split_changes_nothing(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    split_into_frames(root, [])
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_unknown_episode(root: Path) -> None:
    with pytest.raises(ValueError, match=r"episodes 0 to 2, but not \[3\]"):
        split_into_frames(root, [3])
