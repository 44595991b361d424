"""Chunks read from disk are those that LeRobot's DataLoader hands out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.storage.action_chunks import read_action_chunks
from tests.conftest import ACTION_DIM, EPISODES, FRAMES, read_batch, write_dataset


def test_chunks_are_lerobots_the_last_ones_padded(dataset_root: Path):
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    chunks = read_action_chunks(meta, 4, 1000)
    batch = read_batch(dataset_root, range(EPISODES * FRAMES), chunk_size=4)
    assert chunks.dtype == np.float32
    np.testing.assert_array_equal(chunks, batch["action"].numpy())


def test_a_large_dataset_is_read_at_frames_spread_over_it(dataset_root: Path):
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    every = read_action_chunks(meta, 2, 1000)
    some = read_action_chunks(meta, 2, 4)
    np.testing.assert_array_equal(some, every[[0, 9, 19, 29]])
    assert some.shape == (4, 2, ACTION_DIM)


def test_actions_of_one_number(tmp_path: Path):
    root = write_dataset(tmp_path / "data", action_dim=1)
    meta = LeRobotDatasetMetadata("local/noise", root=root)
    assert read_action_chunks(meta, 3, 7).shape == (7, 3, 1)
    for file in (root / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        column = table.schema.get_field_index("action")
        pq.write_table(table.set_column(column, "action", pa.array(range(len(table)))), file)
    assert read_action_chunks(meta, 2, 2)[0].tolist() == [[0], [1]]  # whole numbers


def test_data_that_is_not_here_is_one_error(dataset_root: Path, tmp_path: Path):
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    meta.root = tmp_path
    with pytest.raises(ValueError, match="The actions of 'local/noise' can't be read: .*streaming=false"):
        read_action_chunks(meta, 4, 10)
