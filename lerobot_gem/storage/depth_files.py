"""The depth of one episode as files, until it becomes part of a dataset.

A folder per episode, complete or absent: for each depth camera 16-bit PNGs in a parquet file (cameras stored as images) or
a video in LeRobot's depth encoding (cameras stored as videos), and `depth.json` with statistics. Depth is whole
millimetres, so that a histogram of 65,536 bins holds every statistic exactly, over all pixels of all frames.
"""

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.configs import DepthEncoderConfig
from lerobot.datasets.compute_stats import DEFAULT_QUANTILES
from lerobot.datasets.depth_utils import quantize_depth
from numpy.typing import NDArray

from lerobot_gem.processing.depth_target import MAX_DEPTH_MM, MIN_DEPTH_MM
from lerobot_gem.storage.images import encode_depth_png
from lerobot_gem.storage.video_files import count_frames

_SUMMARY = "depth.json"
_PNG = "png"
# Labels stay: with a quicker level, smooth depth takes 1.7 times the room of its RGB videos (docs/results/depth_storage.md).
_SMALL_PNG_LEVEL = 6


@dataclass(frozen=True)
class DepthSummary:
    """What an episode's depth of one camera is like.

    Attributes:
        height: Of the frames in pixels.
        width: Of the frames in pixels.
        frames: Number of them.
        usable: Share of the pixels that training takes for valid depth.
        stats: LeRobot's statistics in millimetres, name -> number; `count` is `frames`.
    """

    height: int
    width: int
    frames: int
    usable: float
    stats: dict[str, float]


def depth_encoder() -> DepthEncoderConfig:
    """LeRobot's depth encoding, without B-frames and wavefronts.

    With B-frames the first decoding time depends on the number of frames in a video, and joining short videos fails
    ("Invalid argument"); with a key frame every second frame they save nothing. Wavefronts let threads decode one frame
    together, which costs a fifth more CPU time (benchmarks/depth_storage.py), while training reads many frames at once.
    """
    return DepthEncoderConfig(extra_options={"x265-params": "lossless=1:bframes=0:wpp=0:log-level=none"})


class EpisodeDepthWriter:
    """Writes an episode's depth frame by frame; `folder` appears when `close` is called, and not before.

    Args:
        folder: To make.
        storage: Depth key -> "image" or "video".
        fps: Frames per second of the videos.
    """

    def __init__(self, folder: Path, storage: Mapping[str, str], fps: int) -> None:
        self._folder = folder
        self._partial = folder.with_name(f".{folder.name}")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._histograms = {key: np.zeros(1 << 16, dtype=np.int64) for key in storage}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._files: dict[str, _PngFile | _VideoFile] = {
            key: _PngFile(_png_file(self._partial, key))
            if stored == "image"
            else _VideoFile(video_file(self._partial, key), fps)
            for key, stored in storage.items()
        }
        self.frames = 0

    def add(self, depth: Mapping[str, NDArray[np.uint16]]) -> None:
        """Append frames: depth key -> (N, H, W) in millimetres, N the same for all keys."""
        for key, frames in depth.items():
            self._sizes[key] = (frames.shape[1], frames.shape[2])
            self._histograms[key] += np.bincount(frames.ravel(), minlength=1 << 16)
            self._files[key].add(frames)
        self.frames += len(next(iter(depth.values())))

    def close(self) -> None:
        """Complete the folder.

        Raises:
            OSError: A file is incomplete, which the disk did not tell before.
        """
        for file in self._files.values():
            file.close(self.frames)
        summaries = {
            key: asdict(
                DepthSummary(
                    *self._sizes[key], self.frames, _usable(histogram), _stats(histogram, self.frames)
                )
            )
            for key, histogram in self._histograms.items()
        }
        (self._partial / _SUMMARY).write_text(json.dumps(summaries, indent=1))
        self._partial.rename(self._folder)


def read_summary(folder: Path) -> dict[str, DepthSummary]:
    """Depth key -> what `EpisodeDepthWriter` found."""
    return {
        key: DepthSummary(**values) for key, values in json.loads((folder / _SUMMARY).read_text()).items()
    }


def read_pngs(folder: Path, key: str) -> list[bytes]:
    """An episode's frames of a camera stored as images, as encoded PNGs."""
    return pq.read_table(_png_file(folder, key)).column(_PNG).to_pylist()


def video_file(folder: Path, key: str) -> Path:
    """An episode's frames of a camera stored as videos."""
    return folder / f"{key}.mp4"


def require_frames(video: Path, expected: int) -> None:
    """Check that a video is complete: libav does not tell of all writes that failed.

    Raises:
        OSError: It is not.
    """
    try:
        found = count_frames(video)
    except ValueError:
        found = 0
    if found != expected:
        raise OSError(errno.EIO, f"Only {found} of {expected} frames were written", str(video))


def _png_file(folder: Path, key: str) -> Path:
    return folder / f"{key}.parquet"


class _PngFile:
    """16-bit PNGs, rows of a parquet file."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, pa.schema([(_PNG, pa.binary())]), compression="none")

    def add(self, frames: NDArray[np.uint16]) -> None:
        pngs = [encode_depth_png(frame, _SMALL_PNG_LEVEL) for frame in frames]
        self._writer.write_table(pa.table({_PNG: pngs}, schema=self._writer.schema))

    def close(self, frames: int) -> None:
        self._writer.close()


class _VideoFile:
    """A video in LeRobot's depth encoding (`encode_video_frames` does the same with frames that are files)."""

    def __init__(self, path: Path, fps: int) -> None:
        self._path = path
        self._encoder = depth_encoder()
        self._container = av.open(str(path), "w")
        self._stream: Any = self._container.add_stream(
            self._encoder.vcodec, fps, options=self._encoder.get_codec_options(as_strings=True)
        )
        self._stream.pix_fmt = self._encoder.pix_fmt

    def add(self, frames: NDArray[np.uint16]) -> None:
        self._stream.height, self._stream.width = frames.shape[1:]
        encoder = self._encoder
        for frame in frames:
            quantised: Any = quantize_depth(
                frame,
                depth_min=encoder.depth_min,
                depth_max=encoder.depth_max,
                shift=encoder.shift,
                use_log=encoder.use_log,
                pix_fmt=encoder.pix_fmt,
                input_unit="mm",
            )
            self._container.mux(self._stream.encode(quantised))

    def close(self, frames: int) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()
        require_frames(self._path, frames)


def _usable(histogram: NDArray[np.int64]) -> float:
    """Share of the pixels strictly between the bounds of valid depth."""
    return float(histogram[MIN_DEPTH_MM + 1 : MAX_DEPTH_MM].sum() / histogram.sum())


def _stats(histogram: NDArray[np.int64], frames: int) -> dict[str, float]:
    """LeRobot's statistics of the pixels of a histogram by millimetres."""
    values, total = np.arange(len(histogram)), histogram.sum()
    present = np.flatnonzero(histogram)
    mean = float(histogram @ values / total)
    variance = float(histogram @ (values - mean) ** 2 / total)
    ranks = np.cumsum(histogram)
    quantiles = {
        f"q{int(quantile * 100):02d}": float(np.searchsorted(ranks, quantile * total))
        for quantile in DEFAULT_QUANTILES
    }
    extremes = {"min": float(present[0]), "max": float(present[-1])}
    return {**extremes, "mean": mean, "std": variance**0.5, "count": frames, **quantiles}
