"""An episode's depth as files: exact where stored as images, within a step of LeRobot's encoding where stored as videos."""

import io
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.depth_utils import dequantize_depth
from lerobot.datasets.video_utils import concatenate_video_files, decode_video_frames
from PIL import Image

from lerobot_gem.storage.depth_files import (
    EpisodeDepthWriter,
    read_pngs,
    read_summary,
    require_frames,
    video_file,
)
from lerobot_gem.storage.video_files import count_frames

STORAGE = {"images": "image", "video": "video"}


def frames(count: int, seed: int = 0, height: int = 64, width: int = 96) -> np.ndarray:
    """Millimetres within what LeRobot's video encoding keeps."""
    return np.random.default_rng(seed).integers(10, 10000, (count, height, width), dtype=np.uint16)


def write(folder: Path, depth: np.ndarray, batch: int = 3) -> Path:
    writer = EpisodeDepthWriter(folder, STORAGE, fps=10)
    for start in range(0, len(depth), batch):
        writer.add(dict.fromkeys(STORAGE, depth[start : start + batch]))
    assert not folder.exists()  # complete or absent
    writer.close()
    return folder


def test_images_are_exact_and_videos_within_a_step(tmp_path: Path) -> None:
    depth = frames(7)
    folder = write(tmp_path / "episode", depth)
    images = [np.asarray(Image.open(io.BytesIO(png))) for png in read_pngs(folder, "images")]
    np.testing.assert_array_equal(images, depth)
    times = [index / 10 for index in range(7)]
    codes = decode_video_frames(video_file(folder, "video"), times, 1e-4, "pyav", is_depth=True)
    decoded = dequantize_depth(codes)[:, 0].numpy()
    step = (depth / 1000 + 3.5) * np.log(13.5 / 3.51) / 4095 * 1000  # between two of 12-bit logarithmic codes
    assert (np.abs(decoded - depth) <= step / 2 + 0.5 + 1e-2).all()
    assert not list(tmp_path.glob(".*"))


def test_statistics_are_those_of_all_pixels(tmp_path: Path) -> None:
    depth = frames(5)
    depth[:, :8] = 0
    depth[1, 10, 10] = 65535
    summary = read_summary(write(tmp_path / "episode", depth))["images"]
    assert (summary.height, summary.width, summary.frames) == (64, 96, 5)
    assert summary.usable == pytest.approx(((depth > 11) & (depth < 9990)).mean())
    expected = {"min": 0, "max": 65535, "mean": depth.mean(), "std": depth.std(), "count": 5}
    for quantile in (1, 10, 50, 90, 99):
        expected[f"q{quantile:02d}"] = np.quantile(depth, quantile / 100, method="inverted_cdf")
    assert summary.stats == pytest.approx(expected)


def test_what_an_interrupted_run_left_is_replaced(tmp_path: Path) -> None:
    interrupted = EpisodeDepthWriter(tmp_path / "episode", STORAGE, fps=10)
    interrupted.add(dict.fromkeys(STORAGE, frames(4, seed=1)))
    folder = write(tmp_path / "episode", frames(2))
    assert len(read_pngs(folder, "images")) == count_frames(video_file(folder, "video")) == 2


def test_videos_of_any_lengths_can_be_joined(tmp_path: Path) -> None:
    lengths = (1, 2, 3, 1, 16)  # with B-frames, such as these can't
    parts = [video_file(write(tmp_path / f"{i}", frames(n, seed=i)), "video") for i, n in enumerate(lengths)]
    concatenate_video_files(parts, tmp_path / "joined.mp4")
    require_frames(tmp_path / "joined.mp4", sum(lengths))
    times = [index / 10 for index in range(sum(lengths))]
    whole = decode_video_frames(tmp_path / "joined.mp4", times, 1e-4, "pyav", is_depth=True)
    single = [
        decode_video_frames(part, times[:length], 1e-4, "pyav", is_depth=True)
        for part, length in zip(parts, lengths, strict=True)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(single))


def test_a_video_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    video = video_file(write(tmp_path / "episode", frames(6)), "video")
    with pytest.raises(OSError, match="Only 6 of 7 frames were written"):
        require_frames(video, 7)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(OSError, match="Only 0 of 6 frames were written"):
        require_frames(video, 6)
