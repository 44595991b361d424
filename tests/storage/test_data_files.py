"""Data files with further columns, and in new files behind the others."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.io_utils import load_info

from lerobot_gem.storage import data_files as storage_data_files
from lerobot_gem.storage.data_files import (
    DataFilesWriter,
    add_columns,
    data_files,
    last_file,
    next_file,
)
from tests.conftest import CAMERAS, EPISODES, FRAMES, write_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "set")


def doubled(table: pa.Table) -> dict[str, pa.Array]:
    return {"doubled": pa.array([2 * index for index in table["index"].to_pylist()], type=pa.int64())}


def test_a_column_is_added_and_all_else_stays(root: Path, tmp_path: Path) -> None:
    features = {**load_info(root).features, "doubled": {"dtype": "int64", "shape": (1,), "names": None}}
    [file] = data_files(root)
    before = file.read_bytes()
    target = tmp_path / "elsewhere" / file.name
    add_columns(file, target, doubled, features)
    assert file.read_bytes() == before
    old, new = pq.read_table(file), pq.read_table(target)
    assert new.drop_columns("doubled").equals(old)
    assert new["doubled"].to_pylist() == [2 * index for index in range(EPISODES * FRAMES)]
    assert pq.read_metadata(target).num_row_groups == pq.read_metadata(file).num_row_groups == EPISODES
    found = datasets.Dataset.from_parquet(str(target)).features
    assert "doubled" in found and isinstance(found[CAMERAS[0]], datasets.Image)
    add_columns(file, file, doubled, features)  # in its place
    assert file.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("rows", [4, 15, 1000])
def test_an_episode_at_a_time_is_in_memory(root: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the file's row groups lie: LeRobot's converter writes one, other tools several for an episode."""
    monkeypatch.setattr(storage_data_files, "_BATCH", 7)
    features = {**load_info(root).features, "doubled": {"dtype": "int64", "shape": (1,), "names": None}}
    [file] = data_files(root)
    before = pq.read_table(file)
    pq.write_table(before, file, row_group_size=rows)
    seen: list[list[int]] = []

    def noted(table: pa.Table) -> dict[str, pa.Array]:
        seen.append(table["episode_index"].to_pylist())
        return doubled(table)

    add_columns(file, file, noted, features)
    assert seen == [[], *([episode] * FRAMES for episode in range(EPISODES))]
    assert pq.read_metadata(file).num_row_groups == EPISODES
    after = pq.read_table(file)
    assert after.drop_columns("doubled").equals(before)
    assert after["doubled"].to_pylist() == [2 * index for index in range(EPISODES * FRAMES)]


def test_a_file_stays_as_it_is_when_its_columns_fail(root: Path) -> None:
    [file] = data_files(root)
    before = file.read_bytes()

    def fails_later(table: pa.Table) -> dict[str, pa.Array]:
        if 15 in table["index"].to_pylist():
            raise OSError("full")
        return doubled(table)

    with pytest.raises(OSError, match="full"):
        add_columns(file, file, fails_later, load_info(root).features)
    assert file.read_bytes() == before


def test_new_files_follow_when_one_is_full(root: Path) -> None:
    info = load_info(root)
    info.data_files_size_in_mb, info.chunks_size = 0.001, 2
    writer = DataFilesWriter(root, info)
    rows = pa.table({"index": list(range(50))})
    places = [writer.write(rows) for _ in range(6)]
    writer.close()
    assert places == [(0, 1), (0, 1), (1, 0), (1, 0), (1, 1), (1, 1)]
    assert [len(pq.read_table(file)) for file in data_files(root)][1:] == [100, 100, 100]
    assert last_file(root / "data") == (1, 1) and next_file((1, 1), info) == (2, 0)


def test_the_first_file_is_the_first(tmp_path: Path, root: Path) -> None:
    assert next_file(last_file(tmp_path / "nothing"), load_info(root)) == (0, 0)
    assert json.loads((root / "meta" / "info.json").read_text())["chunks_size"] == 1000
