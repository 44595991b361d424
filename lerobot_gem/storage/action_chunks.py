"""Chunks of actions of a dataset on disk, as LeRobot hands them to a policy; no picture is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lerobot.utils.constants import ACTION
from numpy.typing import NDArray

from lerobot_gem.storage.data_files import data_files


def read_action_chunks(meta: Any, chunk_size: int, at_most: int) -> NDArray[np.float32]:
    """Chunks that begin at frames spread evenly over a dataset.

    Args:
        meta: `LeRobotDatasetMetadata`.
        chunk_size: Actions T in a chunk. Past the end of an episode its last action is repeated, as LeRobot does.
        at_most: Chunks to read; a smaller dataset has one for each frame.

    Returns:
        (N, T, A), not normalised.

    Raises:
        ValueError: The data is not on disk.
    """
    files = data_files(Path(meta.root))
    if not files:
        raise ValueError(
            f"The actions of {meta.repo_id!r} can't be read: there are no files in {Path(meta.root) / 'data'}. Action tokens are fitted to "
            "what is on disk; train with --dataset.streaming=false."
        )
    table = pa.concat_tables(
        pq.read_table(file, columns=["index", "episode_index", ACTION]) for file in files
    )
    table = table.sort_by("index")
    episodes = table["episode_index"].to_numpy()
    actions = table[ACTION].combine_chunks()
    if pa.types.is_nested(actions.type):
        actions = pc.list_flatten(actions)
    values = actions.to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.float32)
    starts = np.unique(np.linspace(0, len(table) - 1, min(at_most, len(table))).astype(np.int64))
    ends = np.searchsorted(episodes, episodes[starts], side="right") - 1
    return values[np.minimum(starts[:, None] + np.arange(chunk_size), ends[:, None])]
