"""Video files of a dataset against its metadata, by their headers; no frame is decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_gem.processing.depth_cameras import axes_of

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
        for path, frames in _files(meta, key):
            file = meta.root / path
            if file.is_file():
                _check(meta, key, str(path), _header(file, str(path)), frames)


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


def _files(meta: Any, key: str) -> Iterator[tuple[Path, int]]:
    """A camera's files, and how many frames of episodes are in each."""
    # By columns: of a hundred thousand episodes, LeRobot's own look-up of each would take a minute.
    chunks, numbers, lengths = (
        np.asarray(meta.episodes[name])
        for name in (f"videos/{key}/chunk_index", f"videos/{key}/file_index", "length")
    )
    places, of_episode = np.unique(np.stack([chunks, numbers]), axis=1, return_inverse=True)
    frames = np.bincount(of_episode.ravel(), weights=lengths).astype(int)
    for (chunk, number), count in zip(places.T, frames, strict=True):
        path = meta.video_path.format(video_key=key, chunk_index=chunk, file_index=number)
        yield Path(path), int(count)


def _header(file: Path, name: str) -> _Header:
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise ValueError("it has no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ValueError("there is no decoder of its format here")
            rate = stream.average_rate
            frames = stream.frames
            header = _Header(
                (stream.codec_context.width, stream.codec_context.height),
                None if rate is None else float(rate),
                frames or None,
            )
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(
            f"{name} can't be read as a video ({error}): expected one that FFmpeg opens. Copy it again, or record it again."
        ) from error
    return header
