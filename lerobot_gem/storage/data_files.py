"""Data files of a LeRobotDataset v3.0: given further columns, and followed by new files.

LeRobot's own `add_features` writes such columns too, but holds a whole file as Python objects, takes no videos, and
writes no statistics; it also makes a second dataset for each change. Here an episode at a time is in memory.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Rows that are read at a time, each with its pictures.
_BATCH = 100

# How `datasets.Image` stores an image.
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def data_files(root: Path) -> list[Path]:
    """A dataset's data files, in the order of their frames."""
    return sorted((root / "data").glob("*/*.parquet"))


def add_columns(
    file: Path,
    target: Path,
    columns: Callable[[pa.Table], Mapping[str, pa.Array]],
    features: dict[str, dict[str, Any]],
) -> None:
    """Copy a data file with further columns, a row group for each episode, as LeRobot's recorder writes it.

    Args:
        file: To read.
        target: To write, complete or not at all; may be `file`.
        columns: From some rows of the file to their new columns; called once for each episode, and with no rows.
        features: Of the dataset with the new columns, as LeRobot's `DatasetInfo` has them: shapes are tuples.
    """
    from lerobot.datasets.feature_utils import get_hf_features_from_features

    # In which `datasets` lists the columns and what they hold.
    metadata = get_hf_features_from_features(features).arrow_schema.metadata

    def extended(table: pa.Table) -> pa.Table:
        for name, column in columns(table).items():
            table = table.append_column(name, column)
        return table.replace_schema_metadata(metadata)

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with pq.ParquetFile(file) as source:
        schema = extended(source.schema_arrow.empty_table()).schema
        with _writer(partial, schema) as writer:
            for episode in _episodes(source):
                writer.write_table(extended(episode))
    partial.replace(target)


def _episodes(source: pq.ParquetFile) -> Iterator[pa.Table]:
    """The rows of each episode. One row group may hold many of them (LeRobot's converter writes one for a file), or a part of one."""
    parts: list[pa.Table] = []
    for batch in source.iter_batches(_BATCH):
        numbers = batch["episode_index"].to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
        for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
            if parts and parts[-1]["episode_index"][-1].as_py() != numbers[start]:
                yield pa.concat_tables(parts)
                parts = []
            parts.append(pa.Table.from_batches([batch.slice(start, stop - start)]))
    if parts:
        yield pa.concat_tables(parts)


class DataFilesWriter:
    """Appends rows to a dataset in new data files, each as large as the dataset's others may be.

    Args:
        root: Folder of the dataset.
        info: LeRobot's `DatasetInfo`.
    """

    def __init__(self, root: Path, info: Any) -> None:
        self._root, self._info = root, info
        self._place = last_file(root / "data")
        self._file: pq.ParquetWriter | None = None
        self._bytes = 0

    def write(self, table: pa.Table) -> tuple[int, int]:
        """Append rows; returns chunk and number of the file that they are in."""
        if self._file is None or self._bytes + table.nbytes > self._info.data_files_size_in_mb * 2**20:
            self.close()
            self._place = chunk, number = next_file(self._place, self._info)
            path = self._root / self._info.data_path.format(chunk_index=chunk, file_index=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _writer(path, table.schema)
        self._file.write_table(table)
        self._bytes += table.nbytes
        return self._place

    def close(self) -> None:
        """Complete the last file."""
        if self._file is not None:
            self._file.close()
        self._file, self._bytes = None, 0


def last_file(folder: Path) -> tuple[int, int]:
    """Chunk and number of the last file in a folder of LeRobot's; of the one before the first when there is none."""
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        return 0, -1
    return int(files[-1].parent.name.removeprefix("chunk-")), int(files[-1].stem.removeprefix("file-"))


def next_file(place: tuple[int, int], info: Any) -> tuple[int, int]:
    """Chunk and number of the file behind another."""
    from lerobot.datasets.utils import update_chunk_file_indices

    return update_chunk_file_indices(*place, info.chunks_size)


def _writer(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """With the settings of LeRobot's recorder."""
    return pq.ParquetWriter(file, schema, compression="snappy", use_dictionary=True)
