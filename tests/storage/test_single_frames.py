"""Episodes of one frame behind others, on datasets made of numbers."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.storage.single_frames import FrameBatch, append_frames, store_frames

_FEATURES = {
    "observation.images.image": {"dtype": "image", "shape": (8, 8, 3), "names": ["h", "w", "c"]},
    "observation.images.image_depth": {
        "dtype": "image",
        "shape": (8, 8, 1),
        "names": ["h", "w", "c"],
        "info": {"is_depth_map": True, "depth_unit": "m"},
    },
    "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
}


def _frame(value: int) -> dict[str, np.ndarray]:
    return {
        "observation.images.image": np.full((8, 8, 3), value, np.uint8),
        "observation.images.image_depth": np.full((8, 8, 1), value / 10, np.float32),
        "action": np.array([value, -value], np.float32),
    }


def _create(root: Path, lengths: tuple[int, ...] = ()) -> Path:
    """Episodes with actions 0, 1, ..., of tasks t0, t1, ..."""
    dataset = LeRobotDataset.create("local/set", fps=5, features=_FEATURES, root=root, use_videos=False)
    value = 0
    for episode, length in enumerate(lengths):
        for _ in range(length):
            dataset.add_frame({**_frame(value), "task": f"t{episode}"})
            value += 1
        dataset.save_episode()
    dataset.finalize()
    return root


def _batch(folder: Path, values: range, task: str, count: int | None = None) -> FrameBatch:
    file = folder / f"{values.start}.parquet"
    store_frames([_frame(value) for value in values], file)
    return FrameBatch(file, task, len(values) if count is None else count)


def _load(root: Path, **kwargs) -> LeRobotDataset:
    return LeRobotDataset("local/set", root=root, depth_output_unit="m", **kwargs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Episodes of 3 and 2 frames, then 4 and 1 single ones, of which the batches had 4 and 3."""
    root = _create(tmp_path / "set", (3, 2))
    append_frames(root, [_batch(tmp_path, range(5, 9), "t1"), _batch(tmp_path, range(9, 12), "new", 1)])
    return root


def test_each_frame_becomes_an_episode(root: Path) -> None:
    dataset = _load(root, delta_timestamps={"action": [0.0, 0.2, 0.4]})
    assert dataset.num_episodes == 7 and dataset.num_frames == 10
    for index in range(10):
        item = dataset[index]
        assert int(item["episode_index"]) == [0, 0, 0, 1, 1, 2, 3, 4, 5, 6][index]
        assert int(item["frame_index"]) == [0, 1, 2, 0, 1, 0, 0, 0, 0, 0][index]
        assert float(item["timestamp"]) == pytest.approx(int(item["frame_index"]) / 5)
        assert int(item["index"]) == index
        assert float(item["action"][0, 0]) == index
        assert round(float(item["observation.images.image"].mean()) * 255) == index
        assert float(item["observation.images.image_depth"].mean()) == pytest.approx(index / 10)
        assert item["task"] == ["t0", "t0", "t0", *["t1"] * 6, "new"][index]
    assert dataset[4]["action_is_pad"].tolist() == [False, True, True]
    assert dataset[6]["action_is_pad"].tolist() == [False, True, True]


def test_metadata_agrees_with_the_data(root: Path) -> None:
    meta = _load(root).meta
    assert meta.info.splits == {"train": "0:7"} and meta.total_tasks == 3
    assert [episode["length"] for episode in meta.episodes] == [3, 2, 1, 1, 1, 1, 1]
    assert [episode["dataset_from_index"] for episode in meta.episodes] == [0, 3, 5, 6, 7, 8, 9]
    assert [episode["tasks"] for episode in meta.episodes][-2:] == [["t1"], ["new"]]
    assert meta.stats["action"]["max"].tolist() == [9, 0] and meta.stats["action"]["count"] == 10
    np.testing.assert_allclose(meta.stats["action"]["mean"], [4.5, -4.5])
    assert meta.stats["index"]["max"][0] == 9 and meta.stats["episode_index"]["max"][0] == 6
    assert meta.stats["observation.images.image"]["max"].max() == pytest.approx(9 / 255)
    assert meta.stats["observation.images.image_depth"]["max"].max() == pytest.approx(0.9)


def test_a_dataset_of_single_frames_alone_is_like_lerobots_own(tmp_path: Path) -> None:
    root = _create(tmp_path / "set")
    append_frames(root, [_batch(tmp_path, range(3), "t0")])
    own = LeRobotDataset.create(
        "local/set", fps=5, features=_FEATURES, root=tmp_path / "own", use_videos=False
    )
    for value in range(3):
        own.add_frame({**_frame(value), "task": "t0"})
        own.save_episode()
    own.finalize()
    ours, theirs = _load(root), _load(tmp_path / "own")
    assert ours.features == theirs.features and ours.meta.info == theirs.meta.info
    assert ours.hf_dataset.features == theirs.hf_dataset.features
    assert list(ours.meta.episodes) == list(theirs.meta.episodes)
    for key, stats in theirs.meta.stats.items():
        for name in ("min", "max", "mean", "std", "count"):
            if name != "count" or "image" not in key:
                np.testing.assert_allclose(ours.meta.stats[key][name], stats[name], atol=1e-6)
            assert ours.meta.stats[key][name].shape == stats[name].shape
    for index in range(3):
        for key, value in theirs[index].items():
            assert np.all(np.asarray(ours[index][key] == value)), key


def test_lerobot_can_go_on_and_merge_and_choose(root: Path, tmp_path: Path) -> None:
    dataset = LeRobotDataset.resume("local/set", root=root)
    dataset.add_frame({**_frame(10), "task": "t0"})
    dataset.save_episode()
    dataset.finalize()
    append_frames(root, [_batch(tmp_path, range(11, 12), "t0")])
    assert [float(_load(root)[index]["action"][0]) for index in range(12)] == list(range(12))
    chosen = _load(root, episodes=[1, 5, 8])
    assert [float(chosen[i]["action"][0]) for i in range(4)] == [3, 4, 8, 11]
    aggregate_datasets(["local/set"] * 2, "local/both", roots=[root] * 2, aggr_root=tmp_path / "both")
    both = LeRobotDataset("local/both", root=tmp_path / "both")
    assert both.num_episodes == 18 and float(both[23]["action"][0]) == 11


def test_full_files_are_followed_by_others(tmp_path: Path) -> None:
    root = _create(tmp_path / "set")
    info = root / "meta" / "info.json"
    info.write_text(
        info.read_text().replace('"data_files_size_in_mb": 100', '"data_files_size_in_mb": 0.002')
    )
    append_frames(root, [_batch(tmp_path, range(start, start + 4), "t0") for start in (0, 4, 8)])
    assert len(list((root / "data").glob("*/*.parquet"))) == 3
    assert [float(_load(root)[index]["action"][0]) for index in range(12)] == list(range(12))


def test_nothing_to_append_changes_nothing(tmp_path: Path) -> None:
    root = _create(tmp_path / "set", (2,))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    append_frames(root, [])
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_frames_that_lack_a_feature_are_named(tmp_path: Path) -> None:
    root = _create(tmp_path / "set", (2,))
    frame = _frame(0)
    del frame["action"]
    store_frames([frame], tmp_path / "frames.parquet")
    with pytest.raises(ValueError, match=r"frames.parquet lacks action, which .*set has"):
        append_frames(root, [FrameBatch(tmp_path / "frames.parquet", "t0", 1)])
