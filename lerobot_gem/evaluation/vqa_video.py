"""Frames of a video."""

from pathlib import Path

from PIL import Image

from lerobot_gem.storage.video_files import count_frames, spread_frames


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
        return list(spread_frames(path, count_frames(path), count))
    except ValueError as error:
        raise ValueError(
            f"{path} can't be decoded ({error}): expected a video. Download it again."
        ) from error
