"""Splits episodes of unrelated frames into episodes of one frame, in a finished LeRobotDataset v3.0.

LeRobot pads an action chunk at the end of an episode, so that a frame whose successor is unrelated must be an episode
of its own. Saving such an episode through `LeRobotDataset.save_episode` costs 50 to 90 ms, nearly all of it metadata
that is rewritten each time. Saving a batch of frames as one episode and splitting it afterwards costs one pass over the
files.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

# Columns that depend on where an episode begins; their statistics are those of bookkeeping, not of data.
_POSITIONS = ("episode_index", "frame_index", "timestamp", "index")


def split_into_frames(root: Path, episodes: Collection[int]) -> None:
    """Replace each of `episodes` by one episode for each of its frames; later episodes move up.

    Args:
        root: folder of a finalised data set with images in its data files (no videos).
        episodes: indices of the episodes to split.

    Raises:
        ValueError: the data set stores videos, or has no such episode.
    """
    from lerobot.datasets.compute_stats import compute_episode_stats
    from lerobot.datasets.io_utils import load_info, load_stats, write_info, write_stats

    if not episodes:
        return
    info = load_info(root)
    if any(feature["dtype"] == "video" for feature in info.features.values()):
        raise ValueError(f"{root} stores videos, whose frames can't be split: make it with images.")
    unknown = sorted(set(episodes) - set(range(info.total_episodes)))
    if unknown:
        raise ValueError(f"{root} has episodes 0 to {info.total_episodes - 1}, but not {unknown}.")

    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    rows = [
        part for row in table.to_dict("records") for part in _parts(row, row["episode_index"] in episodes)
    ]
    for number, row in enumerate(rows):
        row["episode_index"] = number
        row["meta/episodes/chunk_index"] = row["meta/episodes/file_index"] = 0
    lengths = np.array([row["length"] for row in rows])
    starts = np.cumsum(lengths) - lengths
    columns = {
        "episode_index": np.repeat(np.arange(len(rows)), lengths),
        "frame_index": np.arange(lengths.sum()) - np.repeat(starts, lengths),
        "index": np.arange(lengths.sum()),
    }
    columns["timestamp"] = (columns["frame_index"] / info.fps).astype(np.float32)
    for row, start in zip(rows, starts, strict=True):
        _set_position_stats(row, {key: columns[key][start : start + row["length"]] for key in _POSITIONS})

    for file in sorted((root / "data").glob("*/*.parquet")):
        _rewrite_data(file, columns)
    for file in files:
        file.unlink()
    pd.DataFrame(rows).to_parquet(files[0], index=False)
    info.total_episodes = len(rows)
    info.splits = {"train": f"0:{len(rows)}"}
    write_info(info, root)
    features = {key: info.features[key] for key in _POSITIONS}
    stats = {**(load_stats(root) or {}), **compute_episode_stats(dict(columns), features)}
    write_stats(stats, root)


def _parts(row: dict[str, Any], split: bool) -> list[dict[str, Any]]:
    """An episode's metadata, or that of one episode per frame. Parts keep the whole's statistics at their own count:
    aggregated over the parts they are the whole's again."""
    if not split:
        return [dict(row)]
    counts = {key: np.array([1]) for key in row if key.startswith("stats/") and key.endswith("/count")}
    first = row["dataset_from_index"]
    return [
        {**row, **counts, "length": 1, "dataset_from_index": first + i, "dataset_to_index": first + i + 1}
        for i in range(row["length"])
    ]


def _set_position_stats(row: dict[str, Any], columns: dict[str, np.ndarray]) -> None:
    for key, values in columns.items():
        for name in [column for column in row if column.startswith(f"stats/{key}/")]:
            kind = name.rsplit("/", 1)[1]
            if kind == "count":
                value: float = len(values)
            elif kind.startswith("q"):
                value = float(np.quantile(values, int(kind[1:]) / 100))
            else:
                value = float(getattr(np, kind)(values))
            row[name] = np.array([value]).astype(np.int64 if kind == "count" else np.float64)


def _rewrite_data(file: Path, columns: dict[str, np.ndarray]) -> None:
    """Write new bookkeeping columns into a data file, one row group at a time: pictures are never all in memory."""
    source = pq.ParquetFile(file)
    partial = file.with_suffix(".partial")
    with pq.ParquetWriter(partial, source.schema_arrow, compression="snappy", use_dictionary=True) as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            rows = table.column("index").to_numpy()
            for key, values in columns.items():
                position = table.schema.get_field_index(key)
                field = table.schema.field(position)
                table = table.set_column(position, field, pa.array(values[rows], type=field.type))
            writer.write_table(table)
    source.close()
    partial.replace(file)
