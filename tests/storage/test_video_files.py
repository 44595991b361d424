"""Videos whose headers and metadata do not agree."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.storage import video_files
from lerobot_gem.storage.images import TooManyPixelsError
from lerobot_gem.storage.video_files import check_videos, count_frames, open_video, spread_frames
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
        (lambda file: file.write_text("ffconcat version 1.0\nfile 'any.mp4'\n"), "can't be read as a video"),
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


# -- frames --------------------------------------------------------------------------------------------------------------


def encode(file: Path, codec: str, count: int, **options: str) -> Path:
    """Frames that get brighter; `codec` may hold some that show nothing, or that others need."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=10, width=64, height=48, pix_fmt="yuv420p", options=options)
        for number in range(count):
            picture = np.full((48, 64, 3), 20 + 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return file


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "3"}),
        ("a.mp4", "mpeg4", {}),
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("a.avi", "mpeg4", {}),
        ("a.mkv", "libx264", {"bf": "3"}),
        ("a.ts", "mpeg2video", {"bf": "2"}),
    ],
)
def test_frames_are_evenly_spread_whatever_the_format(tmp_path: Path, name: str, codec: str, options: dict):
    file = encode(tmp_path / name, codec, 41, **options)
    assert count_frames(file) == 41
    brightness = [np.asarray(frame).mean() for frame in spread_frames(file, 41, 3)]
    assert brightness == pytest.approx([20, 120, 220], abs=6)
    assert len(list(spread_frames(file, 41, 99))) == 41
    with pytest.raises(ValueError, match="frame 49 of 50 is not in it"):
        list(spread_frames(file, 50, 2))


def test_what_an_edit_list_hides_is_not_counted(tmp_path: Path):
    """As a clip that was cut out of another without being encoded anew."""
    whole, clip = encode(tmp_path / "whole.mp4", "libx264", 30, bf="0", g="30"), tmp_path / "clip.mp4"
    with av.open(str(whole)) as source, av.open(str(clip), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts -= 10 * packet.duration
                packet.dts -= 10 * packet.duration
                packet.stream = stream
                target.mux(packet)
    with av.open(str(clip)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    assert count_frames(clip) == shown < 30


def test_most_videos_are_not_decoded_to_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, opened = encode(tmp_path / "a.mp4", "libx264", 12), []
    monkeypatch.setattr(video_files, "open_video", lambda path: opened.append(path) or open_video(path))
    assert count_frames(file) == 12 and opened == [file]


def test_frames_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = encode(tmp_path / "a.mp4", "mpeg4", 1)
    monkeypatch.setattr(video_files, "MOST_PIXELS", 64 * 48 - 1)
    with pytest.raises(TooManyPixelsError, match="64 x 48 pixels"), open_video(file):
        pass
