"""Frames of clips."""

from pathlib import Path

import av
import numpy as np
import pytest

from lerobot_gem.data.gem_jsonl.clips import clip_frames, clip_size
from lerobot_gem.data.gem_jsonl.records import RecordError


def write_clip(path: Path, frames: int) -> Path:
    """A clip of 64 x 48 pixels whose frames get brighter by 10 each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for number in range(frames):
            picture = np.full((48, 64, 3), 20 + 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def test_frames_are_evenly_spaced_from_first_to_last(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 11)
    assert clip_size(clip) == (64, 48)
    brightness = [np.asarray(frame).mean() for frame in clip_frames(clip, 3)]
    assert brightness == pytest.approx([20, 70, 120], abs=3)


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="missing video"):
        clip_size(tmp_path / "none.mp4")
    with pytest.raises(RecordError, match="short video"):
        list(clip_frames(write_clip(tmp_path / "a.mp4", 3), 4))
    (tmp_path / "b.mp4").write_text("no clip")
    with pytest.raises(RecordError, match="broken video"):
        clip_size(tmp_path / "b.mp4")
    # A playlist would name files anywhere.
    (tmp_path / "c.mp4").write_text("ffconcat version 1.0\nfile 'a.mp4'\n")
    with pytest.raises(RecordError, match="broken video"):
        clip_size(tmp_path / "c.mp4")
