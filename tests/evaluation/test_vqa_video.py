"""Frames of a video."""

import pytest

from lerobot_gem.evaluation.vqa_video import video_frames
from tests.evaluation.benchmark_files import SIZE, write_video


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 10, 20]), (99, list(range(21)))])
def test_frames_are_evenly_spread(tmp_path, count, expected):
    write_video(tmp_path / "clip.mp4", 21)
    frames = video_frames(tmp_path / "clip.mp4", count)
    assert [frame.size for frame in frames] == [SIZE] * len(expected)
    # The video is lossy.
    assert [frame.convert("L").getpixel((32, 32)) / 2 for frame in frames] == pytest.approx(expected, abs=2)


def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"There is no video .*clip.mp4: .*a folder of its frames at "
    ):
        video_frames(tmp_path / "clip.mp4", 1)
    (tmp_path / "clip.mp4").write_text("none")
    write_video(tmp_path / "private.mp4", 3)
    for text in (
        "none",
        "ffconcat version 1.0\nfile 'private.mp4'\n",
    ):  # a playlist would name files anywhere
        (tmp_path / "clip.mp4").write_text(text)
        with pytest.raises(ValueError, match=r"clip.mp4 can't be decoded .*: expected a video"):
            video_frames(tmp_path / "clip.mp4", 1)
