"""Episodes of one frame, appended to a finished LeRobotDataset v3.0.

LeRobot pads an action chunk at the end of an episode, so that a frame whose successor is unrelated must be an episode
of its own. Saving such an episode through `LeRobotDataset.save_episode` costs 50 to 90 ms, nearly all of it metadata
that is rewritten each time. Here a batch of frames is stored as one table where it is made, and passed on as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lerobot_gem.processing.depth_cameras import is_depth
from lerobot_gem.storage.data_files import IMAGE, DataFilesWriter, last_file, next_file
from lerobot_gem.storage.images import decode, encode

# Images of a batch that its statistics are computed from; LeRobot, too, looks at some images of long episodes only.
_SAMPLED_IMAGES = 3
# Columns that depend on where a frame stands; each episode has its own statistics of them.
_POSITIONS = ("episode_index", "frame_index", "timestamp", "index")


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
            images = [{"bytes": encode(frame[key]), "path": None} for frame in frames]
            columns[key] = pa.array(images, type=IMAGE)
        else:
            values = np.stack([frame[key] for frame in frames]).astype(np.float32)
            columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    # Read once and thrown away: compressing would only cost time.
    pq.write_table(pa.table(columns), file, compression="none", use_dictionary=False)


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
        self.files = DataFilesWriter(root, info)

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
        place = self.files.write(table)
        self.stats.append(stats)
        self.episodes.append(_metadata(batch.task, place, positions, stats))
        self.info.total_frames += count
        self.info.total_episodes += count

    def _statistics(self, table: pa.Table, numbers: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """LeRobot's statistics of a batch, for as many frames as it has."""
        from lerobot.datasets.compute_stats import DEFAULT_QUANTILES, compute_episode_stats, get_feature_stats

        features, images = self.info.features, {}
        for key in self.schema.names:
            if features[key]["dtype"] == "image":
                chosen = np.unique(np.linspace(0, len(table) - 1, _SAMPLED_IMAGES).astype(int))
                scale = 1.0 if is_depth(features[key]) else 255.0
                values = np.stack([decode(table[key][int(i)].as_py()["bytes"]) for i in chosen])
                stats = get_feature_stats(values, (0, 2, 3), True, DEFAULT_QUANTILES)
                images[key] = {name: np.squeeze(value / scale, axis=0) for name, value in stats.items()}
            elif key not in numbers:
                numbers = {**numbers, key: np.stack(table[key].to_numpy())}
        result = {**compute_episode_stats(numbers, features), **images}
        # Of one frame, statistics of integers would be integers.
        result = {
            key: {name: value.astype(np.float64) for name, value in stats.items()}
            for key, stats in result.items()
        }
        for stats in result.values():
            stats["count"] = np.array([len(table)])
        return result

    def finish(self) -> None:
        from lerobot.datasets.compute_stats import aggregate_stats
        from lerobot.datasets.io_utils import write_info, write_stats, write_tasks
        from lerobot.datasets.utils import DEFAULT_EPISODES_PATH

        self.files.close()
        if not self.episodes:
            return
        folder = self.root / "meta" / "episodes"
        chunk, number = next_file(last_file(folder), self.info)
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


def _metadata(
    task: str, place: tuple[int, int], positions: dict[str, NDArray[Any]], stats: dict[str, Any]
) -> pa.Table:
    """A row for each episode.

    Each has the batch's statistics at its own count: aggregated they are the batch's again.
    """
    count, (chunk, number) = len(positions["index"]), place
    columns: dict[str, Any] = {
        "episode_index": positions["episode_index"],
        "tasks": [[task]] * count,
        "length": np.ones(count, int),
        "data/chunk_index": np.full(count, chunk),
        "data/file_index": np.full(count, number),
        "dataset_from_index": positions["index"],
        "dataset_to_index": positions["index"] + 1,
    }
    for feature, entries in stats.items():
        for name, value in entries.items():
            rows = [value.tolist()] * count
            if name == "count":
                rows = [[1]] * count
            elif feature in positions:
                own = np.zeros(count) if name == "std" else positions[feature].astype(float)
                rows = own[:, None].tolist()
            columns[f"stats/{feature}/{name}"] = rows
    return pa.table(columns)
