"""Frames of video clips as still images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from lerobot_gem.data.gem_jsonl.letterbox import Size
from lerobot_gem.data.gem_jsonl.records import RecordError, is_file
from lerobot_gem.storage.images import TooManyPixelsError
from lerobot_gem.storage.video_files import count_frames, open_video, spread_frames


def clip_size(path: Path) -> Size:
    """Width and height, from the file's header.

    Raises:
        RecordError: There is no such file, it is no video, or its frames are too large.
    """
    with _usable(path), open_video(path) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def clip_frames(path: Path, count: int) -> Iterator[Image.Image]:
    """Frames evenly spaced from the first to the last, as the release samples a clip.

    Raises:
        RecordError: The clip can't be decoded, or has fewer frames.
    """
    with _usable(path):
        total = count_frames(path)
        if total < count:
            raise RecordError("short video", f"{path} has {total} frames; expected at least {count}")
        yield from spread_frames(path, total, count)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Raise a RecordError where a video can't be used."""
    if not is_file(path):
        raise RecordError("missing video", f"there is no file {path!s:.500}")
    try:
        yield
    except RecordError:
        raise
    except TooManyPixelsError as error:
        raise RecordError("too many pixels", f"{path}: {error}") from error
    except ValueError as error:
        raise RecordError("broken video", f"{path}: {error}") from error
