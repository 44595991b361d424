"""Frames of video clips as still images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from PIL import Image

from lerobot_gem.data.gem_jsonl.letterbox import Size
from lerobot_gem.data.gem_jsonl.records import RecordError, is_file


def clip_size(path: Path) -> Size:
    """Width and height, from the file's header.

    Raises:
        RecordError: There is no such file, or it is no video.
    """
    with _video(path) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def clip_frames(path: Path, count: int) -> list[Image.Image]:
    """Frames evenly spaced from the first to the last, as the release samples a clip.

    Raises:
        RecordError: The clip can't be decoded, or has fewer frames.
    """
    with _video(path) as container:
        total = sum(1 for _ in container.decode(video=0))
    if total < count:
        raise RecordError("short video", f"{path} has {total} frames; expected at least {count}")
    wanted = {round(place * (total - 1) / (count - 1)) for place in range(count)}
    with _video(path) as container:
        return [frame.to_image() for place, frame in enumerate(container.decode(video=0)) if place in wanted]


@contextmanager
def _video(path: Path) -> Iterator[av.container.InputContainer]:
    if not is_file(path):
        raise RecordError("missing video", f"there is no file {path!s:.500}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise RecordError("broken video", f"{path} has no video stream")
            yield container
    except av.FFmpegError as error:
        raise RecordError("broken video", f"{path}: {error}") from error
