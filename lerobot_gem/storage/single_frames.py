"""Episodes of one frame, appended to a finished LeRobotDataset v3.0.

LeRobot pads an action chunk at the end of an episode, so that a frame whose successor is unrelated must be an episode
of its own. Saving such an episode through `LeRobotDataset.save_episode` costs 50 to 90 ms, nearly all of it metadata
that is rewritten each time. Here a batch of frames is stored as one table where it is made, and passed on as it is.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

# Pictures of a batch that its statistics are computed from; LeRobot, too, looks at some pictures of long episodes only.
_SAMPLED_PICTURES = 3
# Columns that depend on where a frame stands; each episode has its own statistics of them.
_POSITIONS = ("episode_index", "frame_index", "timestamp", "index")
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@dataclass(frozen=True)
class FrameBatch:
    """Stored frames that are to be appended.

    Attributes:
        file: Where `store_frames` put them.
        task: Their instruction.
        count: How many of them, from the first.
    """

    file: Path
    task: str
    count: int


def store_frames(frames: Sequence[dict[str, NDArray[Any]]], file: Path) -> None:
    """Write unrelated frames, with what a dataset says of each but not where it will stand.

    Args:
        frames: `observation.images.*` (H, W, 3) uint8 or (H, W, 1) float32, vectors (D,) float32.
        file: A parquet file.
    """
    columns: dict[str, pa.Array] = {}
    for key, value in frames[0].items():
        if value.ndim == 3:
            pictures = [{"bytes": encode(frame[key]), "path": None} for frame in frames]
            columns[key] = pa.array(pictures, type=_PICTURE)
        else:
            values = np.stack([frame[key] for frame in frames]).astype(np.float32)
            columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    # Read once and thrown away: compressing would only cost time.
    pq.write_table(pa.table(columns), file, compression="none", use_dictionary=False)


def encode(picture: NDArray[Any]) -> bytes:
    """The file of a picture (H, W, C): BMP for colour, PFM for depth.

    Both are lossless and quick to read. LeRobot's reader decodes the images of every frame of an action chunk, not only
    of the frame that it delivers, so that the decoder decides how fast training reads: BMP takes a tenth of the time of
    PNG and twice its space, PFM half of the time of TIFF, whose tags Pillow parses in Python, and the same space
    (benchmarks/reading.py).
    """
    buffer = io.BytesIO()
    if picture.shape[-1] == 3:
        Image.fromarray(picture).save(buffer, "BMP")
    else:
        Image.fromarray(picture[..., 0]).save(buffer, "PPM")  # Pillow's writer of PFM, too
    return buffer.getvalue()


def append_frames(root: Path, batches: Iterable[FrameBatch]) -> None:
    """Append an episode for each frame of each batch, in order.

    Args:
        root: Folder of a finalised LeRobotDataset with images in its data files (no videos); it may have no episodes.
        batches: With the dataset's features.

    Raises:
        ValueError: The dataset stores videos, or a batch lacks some of its features.
    """
    from lerobot.datasets.io_utils import load_info

    info = load_info(root)
    if any(feature["dtype"] == "video" for feature in info.features.values()):
        raise ValueError(f"{root} stores videos, to which frames can't be appended: make it with images.")
    writer = _Writer(root, info)
    for batch in batches:
        writer.append(batch)
    writer.finish()


class _Writer:
    """Appends batches to the data files; metadata is written by `finish`."""

    def __init__(self, root: Path, info: Any):
        from lerobot.datasets.feature_utils import get_hf_features_from_features
        from lerobot.datasets.io_utils import load_stats, load_tasks

        self.root, self.info = root, info
        self.schema = get_hf_features_from_features(info.features).arrow_schema
        empty = pd.DataFrame({"task_index": np.zeros(0, int)}, index=pd.Index([], name="task"))
        self.tasks = load_tasks(root) if info.total_tasks else empty
        stats = load_stats(root)
        self.stats: list[dict[str, Any]] = [stats] if stats else []
        self.episodes: list[pa.Table] = []
        self.place = _last_file(root / "data")
        self.file: pq.ParquetWriter | None = None
        self.bytes = 0

    def append(self, batch: FrameBatch) -> None:
        table = pq.read_table(batch.file)[: batch.count]
        missing = sorted(set(self.schema.names) - set(_POSITIONS) - {"task_index"} - set(table.column_names))
        if missing:
            raise ValueError(f"{batch.file} lacks {', '.join(missing)}, which {self.root} has.")
        if batch.task not in self.tasks.index:
            self.tasks.loc[batch.task] = len(self.tasks)
        count = len(table)
        positions = {
            "episode_index": self.info.total_episodes + np.arange(count),
            "frame_index": np.zeros(count, int),
            "timestamp": np.zeros(count, np.float32),
            "index": self.info.total_frames + np.arange(count),
        }
        task_index = np.full(count, self.tasks.loc[batch.task, "task_index"])
        for key, values in {**positions, "task_index": task_index}.items():
            table = table.append_column(key, pa.array(values))
        table = table.select(self.schema.names).cast(self.schema)
        stats = self._statistics(table, {**positions, "task_index": task_index})
        self._write(table)
        self.stats.append(stats)
        self.episodes.append(self._metadata(batch.task, positions, stats))
        self.info.total_frames += count
        self.info.total_episodes += count

    def _write(self, table: pa.Table) -> None:
        from lerobot.datasets.utils import update_chunk_file_indices

        if self.file is None or self.bytes + table.nbytes > self.info.data_files_size_in_mb * 2**20:
            self._close_file()
            self.place = update_chunk_file_indices(*self.place, self.info.chunks_size)
            chunk, number = self.place
            path = self.root / self.info.data_path.format(chunk_index=chunk, file_index=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=False)
        self.file.write_table(table)
        self.bytes += table.nbytes

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file, self.bytes = None, 0

    def _statistics(self, table: pa.Table, numbers: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """LeRobot's statistics of a batch, for as many frames as it has."""
        from lerobot.datasets.compute_stats import DEFAULT_QUANTILES, compute_episode_stats, get_feature_stats

        features, pictures = self.info.features, {}
        for key in self.schema.names:
            if features[key]["dtype"] == "image":
                chosen = np.unique(np.linspace(0, len(table) - 1, _SAMPLED_PICTURES).astype(int))
                scale = 1.0 if (features[key].get("info") or {}).get("is_depth_map") else 255.0
                values = np.stack([_decode(table[key][int(i)].as_py()["bytes"]) for i in chosen])
                stats = get_feature_stats(values, (0, 2, 3), True, DEFAULT_QUANTILES)
                pictures[key] = {name: np.squeeze(value / scale, axis=0) for name, value in stats.items()}
            elif key not in numbers:
                numbers = {**numbers, key: np.stack(table[key].to_numpy())}
        result = {**compute_episode_stats(numbers, features), **pictures}
        # Of one frame, statistics of integers would be integers.
        result = {
            key: {name: value.astype(np.float64) for name, value in stats.items()}
            for key, stats in result.items()
        }
        for stats in result.values():
            stats["count"] = np.array([len(table)])
        return result

    def _metadata(self, task: str, positions: dict[str, NDArray[Any]], stats: dict[str, Any]) -> pa.Table:
        """A row for each episode.

        Each has the batch's statistics at its own count: aggregated they are the batch's again.
        """
        count, (chunk, number) = len(positions["index"]), self.place
        columns: dict[str, Any] = {
            "episode_index": positions["episode_index"],
            "tasks": [[task]] * count,
            "length": np.ones(count, int),
            "data/chunk_index": np.full(count, chunk),
            "data/file_index": np.full(count, number),
            "dataset_from_index": positions["index"],
            "dataset_to_index": positions["index"] + 1,
        }
        for feature, kinds in stats.items():
            for kind, value in kinds.items():
                rows = [value.tolist()] * count
                if kind == "count":
                    rows = [[1]] * count
                elif feature in positions:
                    own = np.zeros(count) if kind == "std" else positions[feature].astype(float)
                    rows = own[:, None].tolist()
                columns[f"stats/{feature}/{kind}"] = rows
        return pa.table(columns)

    def finish(self) -> None:
        from lerobot.datasets.compute_stats import aggregate_stats
        from lerobot.datasets.io_utils import write_info, write_stats, write_tasks
        from lerobot.datasets.utils import DEFAULT_EPISODES_PATH, update_chunk_file_indices

        self._close_file()
        if not self.episodes:
            return
        folder = self.root / "meta" / "episodes"
        chunk, number = update_chunk_file_indices(*_last_file(folder), self.info.chunks_size)
        table = pa.concat_tables(self.episodes)
        for name, value in (("chunk", chunk), ("file", number)):
            table = table.append_column(f"meta/episodes/{name}_index", pa.array(np.full(len(table), value)))
        others = sorted(folder.glob("*/*.parquet"))
        if others:
            schema = pq.read_schema(others[0])
            table = table.select(schema.names).cast(schema)
        path = self.root / DEFAULT_EPISODES_PATH.format(chunk_index=chunk, file_index=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        self.info.total_tasks = len(self.tasks)
        self.info.splits = {"train": f"0:{self.info.total_episodes}"}
        write_info(self.info, self.root)
        write_tasks(self.tasks, self.root)
        write_stats(aggregate_stats(self.stats), self.root)


def _last_file(folder: Path) -> tuple[int, int]:
    """Chunk and number of the last file in a folder of LeRobot's; of the one before the first when there is none."""
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        return 0, -1
    return int(files[-1].parent.name.removeprefix("chunk-")), int(files[-1].stem.removeprefix("file-"))


def _decode(encoded: bytes) -> NDArray[Any]:
    """(C, H, W)."""
    picture = np.asarray(Image.open(io.BytesIO(encoded)))
    return picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
