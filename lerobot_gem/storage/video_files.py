"""Video files, which may be a stranger's: a dataset's against its metadata, by their headers; and frames of clips."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lerobot_gem.processing.depth_cameras import axes_of
from lerobot_gem.storage.episode_files import episode_files
from lerobot_gem.storage.images import MOST_PIXELS, TooManyPixelsError

if TYPE_CHECKING:
    import av

# Of FFmpeg's readers, those whose files hold the frames themselves; a playlist, for one, names files anywhere.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,gif"
# Containers write a rate as a fraction, some of them of milliseconds.
_SAME_RATE = 0.01


@dataclass(frozen=True)
class _Header:
    """What the header of a video file says.

    Attributes:
        size: Width and height in pixels.
        rate: Frames per second; None where it does not say.
        frames: How many; None where it does not say.
    """

    size: tuple[int, int]
    rate: float | None
    frames: int | None


def check_videos(meta: Any, cameras: Iterable[str]) -> None:
    """Compare the video files on this machine with meta/info.json and meta/episodes, at a millisecond for each.

    Args:
        meta: `LeRobotDatasetMetadata`, whose counts agree.
        cameras: Of which videos are looked at; those that are stored as images are passed over.

    Raises:
        ValueError: A file can't be read, or has another size or rate, or fewer frames.
    """
    for key in cameras:
        if key not in meta.video_keys:
            continue
        lengths = np.asarray(meta.episodes["length"])
        for path, episodes in episode_files(meta, key):
            file = meta.root / path
            if file.is_file():
                _check(meta, key, str(path), _header(file, str(path)), int(lengths[episodes].sum()))


def _check(meta: Any, key: str, name: str, found: _Header, frames: int) -> None:
    sides = axes_of(key, meta.features[key])
    if found.size != (sides["width"], sides["height"]):
        raise ValueError(
            f"{name} is a video of {found.size[0]} x {found.size[1]} pixels, meta/info.json says {sides['width']} x "
            f"{sides['height']} of {key!r}: expected one size. Correct features.shape in meta/info.json, or the video."
        )
    if found.rate is not None and abs(found.rate / meta.fps - 1) > _SAME_RATE:
        raise ValueError(
            f"{name} is a video of {found.rate:g} frames per second, meta/info.json says fps={meta.fps:g}: expected one rate, since "
            "LeRobot looks a frame up by its time. Write the video at the rate of the dataset."
        )
    if found.frames is not None and found.frames < frames:
        raise ValueError(
            f"{name} is a video of {found.frames} frames, meta/episodes places {frames} frames in it: expected as many. It was cut short, "
            "or belongs to another version of the dataset: copy it again."
        )


def _header(file: Path, name: str) -> _Header:
    try:
        with open_video(file) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            return _Header(
                (stream.codec_context.width, stream.codec_context.height),
                None if rate is None else float(rate),
                stream.frames or None,
            )
    except ValueError as error:
        raise ValueError(
            f"{name} can't be read as a video ({error}): expected one that FFmpeg opens. Copy it again, or record it again."
        ) from error


@contextmanager
def open_video(path: Path) -> "Iterator[av.container.InputContainer]":
    """Open a video that may be somebody else's, with a stream of frames; its header is read, no frame is decoded.

    Raises:
        TooManyPixelsError: Its frames have too many pixels.
        ValueError: It can't be read, here or by what the caller does with it, or it has no video, or of an unknown codec.
    """
    import av

    try:
        with av.open(str(path), options={"format_whitelist": _FORMATS}) as container:
            if not container.streams.video:
                raise ValueError("it has no video in it")
            context = container.streams.video[0].codec_context
            if context is None:
                raise ValueError("there is no decoder of its format here")
            if context.width * context.height > MOST_PIXELS:
                raise TooManyPixelsError(context.width, context.height)
            yield container
    except av.FFmpegError as error:
        raise ValueError(str(error)) from error


def count_frames(path: Path) -> int:
    """Frames in a video; decoded to be counted only where packets and header do not agree, as in VP8, where some packets show nothing.

    Raises:
        ValueError: See `open_video`.
    """
    with open_video(path) as container:
        packets = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(video=0))
        if packets == container.streams.video[0].frames:
            return packets
    with open_video(path) as container:
        return sum(1 for _ in container.decode(video=0))


def spread_frames(path: Path, total: int, count: int) -> Iterator[Image.Image]:
    """Frames of a video, evenly spread from the first to the last; one at a time is in memory.

    Args:
        path: Of the video.
        total: Its frames (`count_frames`).
        count: How many; all of them if there are fewer.

    Raises:
        ValueError: See `open_video`; or it ends early.
    """
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    with open_video(path) as container:
        for place, frame in enumerate(container.decode(video=0)):
            if place in wanted:
                wanted.remove(place)
                yield frame.to_image()
    if wanted:
        raise ValueError(f"frame {min(wanted)} of {total} is not in it")
