"""Statistics of a dataset: that what normalisation reads is finite, else which frames are at fault."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs import NormalizationMode
from numpy.typing import NDArray

from lerobot_gem.processing.statistics import READ
from lerobot_gem.storage.data_files import data_files


def check_statistics(meta: Any, modes: Mapping[str, NormalizationMode]) -> None:
    """Raise a ValueError if what normalisation reads is not finite.

    Args:
        meta: `LeRobotDatasetMetadata`.
        modes: How each vector is normalised, by key.

    Raises:
        ValueError: A statistic is NaN or infinite; the message names the frames that are, if any.
    """
    for key, mode in modes.items():
        stats = (meta.stats or {}).get(key) or {}
        for name in READ.get(mode, ()):
            values = np.atleast_1d(np.asarray(stats.get(name, 0.0), dtype=np.float64))
            broken = np.flatnonzero(~np.isfinite(values))
            if not len(broken):
                continue
            dimension = int(broken[0])
            frames = _broken_frames(Path(meta.root), key)
            raise ValueError(
                f"{key} has the statistic {name}[{dimension}] = {values[dimension]} in meta/stats.json of {meta.repo_id!r}: "
                "expected finite numbers, since every frame is normalised with it. "
                + (
                    f"{key} is not finite in frame(s) {_listed(frames)}. Correct these frames or delete their episodes "
                    "(lerobot-edit-dataset), and compute the statistics anew."
                    if len(frames)
                    else "All frames are finite: compute the statistics anew."
                )
            )


def _broken_frames(root: Path, key: str) -> NDArray[np.int64]:
    """Indices of the frames on disk whose vector is not finite; none where the files can't be read."""
    import pyarrow.parquet as pq

    found = [np.empty(0, dtype=np.int64)]
    for file in data_files(root):
        if {"index", key} <= set(pq.read_schema(file).names):
            table = pq.read_table(file, columns=["index", key])
            values = np.array(table[key].to_pylist(), dtype=np.float64).reshape(len(table), -1)
            found.append(table["index"].to_numpy()[~np.isfinite(values).all(axis=1)])
    return np.sort(np.concatenate(found))


def _listed(frames: NDArray[np.int64]) -> str:
    text = ", ".join(str(frame) for frame in frames[:10])
    return text + (f" and {len(frames) - 10} more" if len(frames) > 10 else "")
