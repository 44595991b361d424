"""Which files hold which episodes, against LeRobot's own look-up of each."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.storage.episode_files import episode_files
from tests.conftest import CAMERAS, EPISODES, write_dataset

META = SimpleNamespace(
    data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    episodes={
        "data/chunk_index": [0, 0, 0, 1, 0],
        "data/file_index": [0, 1, 0, 0, 1],
        "videos/top/chunk_index": [0, 0, 0, 0, 0],
        "videos/top/file_index": [2, 2, 2, 2, 2],
    },
)


def files(camera: str | None = None, episodes: list[int] | None = None) -> dict[str, list[int]]:
    return {str(path): held.tolist() for path, held in episode_files(META, camera, episodes)}


def test_each_file_has_its_episodes() -> None:
    assert files() == {
        "data/chunk-000/file-000.parquet": [0, 2],
        "data/chunk-000/file-001.parquet": [1, 4],
        "data/chunk-001/file-000.parquet": [3],
    }
    assert files("top") == {"videos/top/chunk-000/file-002.mp4": [0, 1, 2, 3, 4]}


def test_of_some_episodes() -> None:
    assert files(episodes=[4, 3, 4]) == {
        "data/chunk-000/file-001.parquet": [4],
        "data/chunk-001/file-000.parquet": [3],
    }


@pytest.mark.parametrize("storage", ["image", "video"])
def test_as_lerobot_looks_them_up(tmp_path: Path, storage: str) -> None:
    meta = LeRobotDatasetMetadata("local/x", write_dataset(tmp_path / "set", storage=storage))
    found = {one: path for path, held in episode_files(meta) for one in held}
    assert found == {one: meta.get_data_file_path(one) for one in range(EPISODES)}
    for camera in CAMERAS if storage == "video" else ():
        found = {one: path for path, held in episode_files(meta, camera) for one in held}
        assert found == {one: meta.get_video_file_path(one, camera) for one in range(EPISODES)}
