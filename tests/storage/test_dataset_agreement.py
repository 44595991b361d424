"""What is said of datasets whose parts do not agree."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from PIL import Image

from lerobot_gem.storage.dataset_agreement import (
    check_counts,
    check_first_pictures,
    check_mode,
    check_rows,
    check_shape,
)
from tests.conftest import CAMERAS, EPISODES, FRAMES, TASKS

FRONT, _ = CAMERAS
TOTAL = EPISODES * FRAMES


@pytest.fixture
def copy(depth_dataset_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(depth_dataset_root, tmp_path / "copy")


def edit_column(root: Path, column: str, change: Callable[[list], list]) -> None:
    [file] = (root / "data").glob("*/*.parquet")
    table = pq.read_table(file)
    position = table.schema.get_field_index(column)
    field = table.schema.field(position)
    values = pa.array(change(table.column(column).to_pylist()), type=field.type)
    pq.write_table(table.set_column(position, field, values), file)


def edit_info(root: Path, **values) -> None:
    file = root / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def meta_of(root: Path) -> LeRobotDatasetMetadata:
    return LeRobotDatasetMetadata("local/noise", root=root)


def png(mode: str, size: tuple[int, int] = (64, 64)) -> dict:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_a_dataset_as_lerobot_writes_it_agrees(depth_dataset_root: Path) -> None:
    meta = meta_of(depth_dataset_root)
    check_counts(meta)
    check_rows(meta)
    check_first_pictures(meta, CAMERAS, meta.depth_keys)


def test_a_part_of_the_files_agrees(copy: Path) -> None:
    """As after a download of some episodes."""
    [file] = (copy / "data").glob("*/*.parquet")
    pq.write_table(pq.read_table(file).slice(FRAMES, FRAMES), file)
    check_rows(meta_of(copy))


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        (
            "index",
            lambda v: [i + 100 for i in v],
            "has index=100 in episode 0, which meta/episodes places at 0 to 9",
        ),
        ("index", lambda v: [v[1], v[0], *v[2:]], "Row 1 of .* has index=0 behind 1 of the same episode"),
        ("index", lambda v: [v[0], v[0], *v[2:]], "Row 1 of .* has index=0 behind 0"),
        ("episode_index", lambda v: [e + 1 for e in v], "belongs to episode 3: expected 0 to 2"),
        ("task_index", lambda v: [*v[:-1], 7], "Row 29 of .* has task_index=7: expected 0 to 1"),
        ("timestamp", lambda v: [*v[:-1], float("inf")], "Row 29 of .* has timestamp=inf: expected seconds"),
    ],
)
def test_rows_against_episodes_and_tasks(copy: Path, column: str, change: Callable, message: str) -> None:
    edit_column(copy, column, change)
    with pytest.raises(ValueError, match=message):
        check_rows(meta_of(copy))


def test_an_episode_that_is_cut_short(copy: Path) -> None:
    [file] = (copy / "data").glob("*/*.parquet")
    pq.write_table(pq.read_table(file).slice(0, TOTAL - 2), file)
    with pytest.raises(ValueError, match="hold 8 frames of episode 2: expected 10"):
        check_rows(meta_of(copy))


def test_episodes_in_another_order(copy: Path) -> None:
    [file] = (copy / "data").glob("*/*.parquet")
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table.slice(FRAMES), table.slice(0, FRAMES)]), file)
    with pytest.raises(ValueError, match="not in the order of their index"):
        check_rows(meta_of(copy))


@pytest.mark.parametrize("count", ["total_episodes", "total_frames", "total_tasks"])
def test_counts(copy: Path, count: str) -> None:
    edit_info(copy, **{count: 99})
    with pytest.raises(ValueError, match=rf"says {count}=99, but meta/.* has \d+: expected one number"):
        check_counts(meta_of(copy))


def test_tasks_in_another_order(copy: Path) -> None:
    """LeRobot takes a frame's task by its row, whatever task_index that row has."""
    file = copy / "meta" / "tasks.parquet"
    pd.read_parquet(file).iloc[::-1].to_parquet(file)
    meta = meta_of(copy)
    assert meta.tasks.iloc[0].name == TASKS[1]
    with pytest.raises(ValueError, match="Row 0 of meta/tasks.parquet .* has task_index=1.*Sort them"):
        check_counts(meta)


def test_first_pictures(copy: Path) -> None:
    edit_column(copy, FRONT, lambda cells: [png("L"), *cells[1:]])
    with pytest.raises(ValueError, match=rf"'{FRONT}' have one channel of 8 bits .* expected three channels"):
        check_first_pictures(meta_of(copy), CAMERAS, [])
    edit_column(copy, FRONT, lambda cells: [png("RGB", (32, 64)), *cells[1:]])
    with pytest.raises(ValueError, match="is 32 x 64 pixels, meta/info.json says 64 x 64"):
        check_first_pictures(meta_of(copy), CAMERAS, [])


@pytest.mark.parametrize(
    ("mode", "is_depth"), [("I;16", False), ("RGBA", False), ("RGB", True), ("L", True), ("F", False)]
)
def test_pictures_of_the_wrong_kind(mode: str, is_depth: bool) -> None:
    with pytest.raises(ValueError, match=f"The pictures of 'front' have .* mode '{mode}'.: expected"):
        check_mode("front", mode, is_depth=is_depth)


def test_a_column_that_is_missing(copy: Path) -> None:
    [file] = (copy / "data").glob("*/*.parquet")
    pq.write_table(pq.read_table(file).drop_columns(["action"]), file)
    with pytest.raises(ValueError, match="has no column action: expected all features"):
        check_rows(meta_of(copy))


def test_cells_that_are_empty(copy: Path) -> None:
    edit_column(copy, "action", lambda cells: [*cells[:5], None, *cells[6:]])
    with pytest.raises(ValueError, match=r"has empty cells \(null\) in the column action"):
        check_rows(meta_of(copy))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 64, 64), "has 4 channels, meta/info.json says 3"), ((3, 32, 64), "is 64 x 32 pixels, .* 64 x 64")],
)
def test_a_picture_of_another_shape(shape: tuple[int, ...], message: str) -> None:
    feature = {"shape": [64, 64, 3], "names": ["height", "width", "channels"]}
    check_shape("front", feature, (3, 64, 64))
    with pytest.raises(ValueError, match=message):
        check_shape("front", feature, shape)
