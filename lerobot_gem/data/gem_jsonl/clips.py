"""Frames of video clips as still images."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from PIL import Image

from lerobot_gem.data.gem_jsonl.letterbox import Size
from lerobot_gem.data.gem_jsonl.records import RecordError, is_file
from lerobot_gem.storage.images import MOST_PIXELS

# Of FFmpeg's readers, those whose files hold the frames themselves; a playlist, for one, names files anywhere.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,gif"


def clip_size(path: Path) -> Size:
    """Width and height, from the file's header.

    Raises:
        RecordError: There is no such file, it is no video, or its frames are too large.
    """
    with _video(path) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def clip_frames(path: Path, count: int) -> Iterator[Image.Image]:
    """Frames evenly spaced from the first to the last, as the release samples a clip.

    Raises:
        RecordError: The clip can't be decoded, or has fewer frames.
    """
    with _video(path) as container:
        total = sum(1 for _ in container.decode(video=0))
    if total < count:
        raise RecordError("short video", f"{path} has {total} frames; expected at least {count}")
    wanted = {round(place * (total - 1) / (count - 1)) for place in range(count)}
    return _frames_at(path, wanted)


def _frames_at(path: Path, wanted: Collection[int]) -> Iterator[Image.Image]:
    with _video(path) as container:
        for place, frame in enumerate(container.decode(video=0)):
            if place in wanted:
                yield frame.to_image()


@contextmanager
def _video(path: Path) -> Iterator[av.container.InputContainer]:
    if not is_file(path):
        raise RecordError("missing video", f"there is no file {path!s:.500}")
    try:
        with av.open(str(path), options={"format_whitelist": _FORMATS}) as container:
            if not container.streams.video:
                raise RecordError("broken video", f"{path} has no video stream")
            context = container.streams.video[0].codec_context
            if context is None:
                raise RecordError("broken video", f"{path} is of a codec that is not known")
            if context.width * context.height > MOST_PIXELS:
                raise RecordError(
                    "too many pixels",
                    f"{path}: frames of {context.width} x {context.height} pixels; expected at most {MOST_PIXELS}",
                )
            yield container
    except av.FFmpegError as error:
        raise RecordError("broken video", f"{path}: {error}") from error
