"""Videos whose headers and metadata do not agree."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.storage.video_files import check_videos
from tests.conftest import CAMERAS, EPISODES, FRAMES, write_video

FRONT, WRIST = CAMERAS
TOTAL = EPISODES * FRAMES


def store_as_videos(root: Path) -> None:
    """Say in the metadata of a dataset that its cameras are stored as videos, all episodes in one file."""
    info = json.loads((root / "meta" / "info.json").read_text())
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    for camera in CAMERAS:
        info["features"][camera]["dtype"] = "video"
        write_video(root / "videos" / camera / "chunk-000" / "file-000.mp4")
    (root / "meta" / "info.json").write_text(json.dumps(info))
    [file] = (root / "meta" / "episodes").glob("*/*.parquet")
    table = pq.read_table(file)
    for camera in CAMERAS:
        for name in ("chunk_index", "file_index"):
            table = table.append_column(f"videos/{camera}/{name}", pa.array([0] * EPISODES))
    pq.write_table(table, file)


@pytest.fixture(scope="module")
def videos(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(dataset_root, tmp_path_factory.mktemp("videos") / "data")
    store_as_videos(root)
    return root


def check(root: Path) -> None:
    check_videos(LeRobotDatasetMetadata("local/noise", root=root), CAMERAS)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def test_videos_as_the_metadata_says(videos: Path, dataset_root: Path):
    check(videos)
    check(dataset_root)  # which has none


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: write_video(file, size=(96, 64)), "96 x 64 pixels, meta/info.json says 64 x 64 of"),
        (lambda file: write_video(file, fps=10), "10 frames per second, meta/info.json says fps=5"),
        (lambda file: write_video(file, frames=15), "15 frames, meta/episodes places 30 frames in it"),
        (cut, "can't be read as a video"),
        (lambda file: file.write_text("no video"), "can't be read as a video"),
    ],
)
def test_videos_that_are_others(videos: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str):
    root = shutil.copytree(videos, tmp_path / "copy")
    spoil(root / "videos" / WRIST / "chunk-000" / "file-000.mp4")
    with pytest.raises(ValueError, match=f"videos/{WRIST}/chunk-000/file-000.mp4 .*{message}"):
        check(root)


def test_files_that_are_not_on_this_machine_are_passed_over(videos: Path, tmp_path: Path):
    root = shutil.copytree(videos, tmp_path / "copy")
    shutil.rmtree(root / "videos" / FRONT)
    check(root)


def test_a_video_may_hold_more_frames_than_are_used(videos: Path, tmp_path: Path):
    root = shutil.copytree(videos, tmp_path / "copy")
    write_video(root / "videos" / FRONT / "chunk-000" / "file-000.mp4", frames=TOTAL + 5)
    check(root)
