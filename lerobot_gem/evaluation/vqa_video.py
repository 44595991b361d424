"""Frames of a video."""

from pathlib import Path

import av
import numpy as np
from PIL import Image


def video_frames(path: Path, count: int) -> list[Image.Image]:
    """Frames evenly spread from the first to the last; all of them if there are fewer.

    Args:
        path: Of the video.
        count: How many.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no video.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no video {path}: expected it there, or a folder of its frames at {path.with_suffix('')}."
        )
    try:
        # Headers may tell another number of frames than there are.
        with av.open(str(path)) as video:
            total = sum(1 for _ in video.decode(video=0))
        wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
        frames: list[Image.Image] = []
        with av.open(str(path)) as video:
            for place, frame in enumerate(video.decode(video=0)):
                if place in wanted:
                    frames.append(frame.to_image())
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(
            f"{path} can't be decoded ({error}): expected a video. Download it again."
        ) from error
    return frames
