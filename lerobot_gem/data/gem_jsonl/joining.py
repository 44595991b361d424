"""Joins datasets of one episode each into one LeRobotDataset v3.0.

LeRobot's own `aggregate_datasets` does the same for any datasets, but holds each file several times in memory, and
copies it to the cache of the `datasets` library, where it stays: 280 MB and 35 MB for files of 35 MB (0.6.1, measured). Here
one row group is in memory at a time, and nothing else is written.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def join_episodes(
    folders: Iterable[Path], root: Path, repo_id: str, fps: int, features: dict[str, dict[str, Any]]
) -> None:
    """Write the dataset; data files get LeRobot's usual size (100 MB), with one row group for each episode.

    Args:
        folders: Of finalised datasets of one episode, with images in their data files, in order.
        root: Folder of the joined dataset; must not exist.
        repo_id: Its name.
        fps: Of all of them.
        features: Of all of them.
    """
    from lerobot.datasets.compute_stats import compute_episode_stats
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.datasets.io_utils import load_stats, load_tasks

    meta = LeRobotDatasetMetadata.create(repo_id, fps, features, root=root, use_videos=False)
    with _DataFiles(meta) as files:
        for index, folder in enumerate(folders):
            [file] = (folder / "data").glob("*/*.parquet")
            table = pq.read_table(file)
            tasks = list(load_tasks(folder).index)
            meta.save_episode_tasks(tasks)
            length, first = len(table), meta.total_frames
            numbers = np.array([meta.get_task_index(task) for task in tasks])
            columns = {
                "episode_index": np.full(length, index),
                "index": np.arange(first, first + length),
                "task_index": numbers[table.column("task_index").to_numpy()],
            }
            stats = load_stats(folder) or {}
            stats |= compute_episode_stats(columns, {key: meta.features[key] for key in columns})
            stats = {key: _floats(values) for key, values in stats.items()}
            place = files.write(_with_columns(table, columns))
            place |= {"dataset_from_index": first, "dataset_to_index": first + length}
            meta.save_episode(index, length, tasks, stats, place)
    meta.finalize()


class _DataFiles:
    """The data files of a dataset, each begun when the last one is full."""

    def __init__(self, meta: Any) -> None:
        self._meta = meta
        self._writer: pq.ParquetWriter | None = None
        self._path = Path()
        self._chunk = self._file = 0

    def __enter__(self) -> "_DataFiles":
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> dict[str, int]:
        """Append an episode; returns where it is, for its metadata."""
        from lerobot.datasets.utils import update_chunk_file_indices

        limit = self._meta.data_files_size_in_mb * 2**20
        if self._writer is not None and self._path.stat().st_size + table.nbytes > limit:
            self._writer.close()
            self._writer = None
            self._chunk, self._file = update_chunk_file_indices(
                self._chunk, self._file, self._meta.chunks_size
            )
        if self._writer is None:
            name = self._meta.data_path.format(chunk_index=self._chunk, file_index=self._file)
            self._path = self._meta.root / name
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="snappy", use_dictionary=True
            )
        self._writer.write_table(table)
        return {"data/chunk_index": self._chunk, "data/file_index": self._file}


def _with_columns(table: pa.Table, columns: dict[str, np.ndarray]) -> pa.Table:
    """The table with other values in some columns, its schema kept."""
    for key, values in columns.items():
        position = table.schema.get_field_index(key)
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.array(values, type=field.type))
    return table


def _floats(stats: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics in one type for all episodes, as the parquet file needs: those of a single frame would be integers."""
    return {kind: value if kind == "count" else value.astype(np.float64) for kind, value in stats.items()}
