"""A dataset with depth features: what is new, and that all else is as it was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.compute_stats import aggregate_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.processing.depth_cameras import depth_key, pair_depth
from lerobot_gem.storage.depth_columns import add_depth_features
from lerobot_gem.storage.depth_files import EpisodeDepthWriter
from tests.data.depth_labels.mixed_source import FPS, FRONT, LENGTHS, SIZES, WRIST, tree, write_mixed_source

STORAGE = {FRONT: "video", WRIST: "image"}
CAMERAS = list(STORAGE)
INFO = {"depth_unit": "mm", "depth_kind": "metric", "depth_model": "some/model"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_source(tmp_path_factory.mktemp("source") / "mixed")


@pytest.fixture(scope="module")
def depth() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        key: random.integers(300, 9000, (sum(LENGTHS), *size), dtype=np.uint16) for key, size in SIZES.items()
    }


@pytest.fixture(scope="module")
def folders(depth: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root, start, made = tmp_path_factory.mktemp("episodes"), 0, {}
    for episode, length in enumerate(LENGTHS):
        made[episode] = root / f"episode-{episode}"
        writer = EpisodeDepthWriter(
            made[episode], {depth_key(camera): stored for camera, stored in STORAGE.items()}, FPS
        )
        writer.add({depth_key(camera): depth[camera][start : start + length] for camera in CAMERAS})
        writer.close()
        start += length
    return made


@pytest.fixture(scope="module")
def labelled(source: Path, folders: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = tree(source)
    root = tmp_path_factory.mktemp("labelled") / "mixed"
    summaries = add_depth_features(source, root, folders, STORAGE, INFO)
    assert tree(source) == before
    assert [entry.frames for entry in summaries[depth_key(WRIST)]] == list(LENGTHS)
    return root


def test_every_frame_has_its_depth(labelled: Path, source: Path, depth: dict[str, np.ndarray]) -> None:
    new, old = LeRobotDataset("local/x", root=labelled), LeRobotDataset("local/x", root=source)
    assert len(new) == len(old) == sum(LENGTHS)
    for index in range(len(old)):
        one, other = new[index], old[index]
        np.testing.assert_array_equal(one[depth_key(WRIST)][0], depth[WRIST][index])
        np.testing.assert_allclose(one[depth_key(FRONT)][0], depth[FRONT][index], atol=2.6)
        for key, value in other.items():
            same = (one[key] == value).all() if hasattr(value, "all") else one[key] == value
            assert same, (index, key)


def test_features_say_what_depth_is(labelled: Path) -> None:
    features = LeRobotDataset("local/x", root=labelled).meta.features
    assert pair_depth(features, None) == {camera: depth_key(camera) for camera in CAMERAS}
    for camera, storage in STORAGE.items():
        feature = features[depth_key(camera)]
        assert feature["dtype"] == storage and tuple(feature["shape"]) == (*SIZES[camera], 1)
        assert feature["info"]["is_depth_map"] and INFO.items() <= feature["info"].items()
    assert features[depth_key(FRONT)]["info"]["video.pix_fmt"] == "gray12le"
    assert features[depth_key(FRONT)]["info"]["video.depth_max"] == 10.0


def test_all_else_is_as_it_was(labelled: Path, source: Path) -> None:
    new, old = tree(labelled), tree(source)
    changed = {file for file in old if new[file] != old[file]}
    data = {file for file in old if file.startswith("data/")}
    assert changed == data | {
        "meta/info.json",
        "meta/stats.json",
        "meta/episodes/chunk-000/file-000.parquet",
    }
    added = set(new) - set(old)
    assert added == {file.replace(FRONT, depth_key(FRONT)) for file in old if file.startswith("videos/")}
    for file in data | {"meta/episodes/chunk-000/file-000.parquet"}:
        one, other = pq.read_table(labelled / file), pq.read_table(source / file)
        assert one.select(other.column_names).equals(other)
    one, other = (json.loads((root / "meta/info.json").read_text()) for root in (labelled, source))
    for camera in CAMERAS:
        del one["features"][depth_key(camera)]
    assert one == other


def test_statistics_are_those_of_the_depth(
    labelled: Path, source: Path, depth: dict[str, np.ndarray]
) -> None:
    new, old = (json.loads((root / "meta/stats.json").read_text()) for root in (labelled, source))
    assert old.items() <= new.items() and set(new) - set(old) == {depth_key(c) for c in CAMERAS}
    for camera in CAMERAS:
        stats = LeRobotDataset("local/x", root=labelled).meta.stats[depth_key(camera)]
        values = depth[camera].astype(float)
        for name in ("min", "max", "mean", "std"):
            assert stats[name].shape == (1, 1, 1)
            assert stats[name].item() == pytest.approx(getattr(values, name)()), name
        assert stats["count"] == [sum(LENGTHS)]
    # Also for each episode, from which LeRobot's tools compute them again when they edit a dataset.
    table = pq.read_table(labelled / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    prefix = f"stats/{depth_key(WRIST)}/"
    episodes = [
        {WRIST: {key.removeprefix(prefix): np.array(row[key]) for key in row if key.startswith(prefix)}}
        for row in table
    ]
    again = aggregate_stats(episodes)[WRIST]
    assert {key: value.tolist() for key, value in again.items()} == new[depth_key(WRIST)]


def test_lerobots_tools_take_it(labelled: Path, depth: dict[str, np.ndarray], tmp_path: Path) -> None:
    from lerobot.datasets.dataset_tools import delete_episodes

    dataset = LeRobotDataset("local/x", root=labelled)
    rest = delete_episodes(dataset, [0], output_dir=tmp_path / "rest", repo_id="local/rest")
    np.testing.assert_allclose(rest[0][depth_key(FRONT)][0], depth[FRONT][LENGTHS[0]], atol=2.6)
    np.testing.assert_array_equal(rest[0][depth_key(WRIST)][0], depth[WRIST][LENGTHS[0]])


def test_until_the_last_file_lerobot_cannot_load_it(
    source: Path, folders: dict[int, Path], tmp_path: Path
) -> None:
    broken = dict(folders)
    broken[3] = Path(shutil.copytree(folders[3], tmp_path / "episode"))
    (broken[3] / f"{depth_key(FRONT)}.mp4").unlink()
    with pytest.raises(OSError):
        add_depth_features(source, tmp_path / "set", broken, STORAGE, INFO)
    assert (tmp_path / "set" / "data").exists() and not (tmp_path / "set" / "meta" / "info.json").exists()
