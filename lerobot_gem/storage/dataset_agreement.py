"""Whether the parts of a dataset agree: its counts, its rows and its pictures with its metadata.

LeRobot takes each of them at its word. Where they disagree it reads other frames, other tasks, or none, and says nothing; so
training asks here when a policy is bound to a dataset, and so does every command that opens one.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.processing.depth_cameras import axes_of
from lerobot_gem.processing.language import EVENTS, PERSISTENT
from lerobot_gem.storage.data_files import data_files

Indices = NDArray[np.int64]

# What Pillow calls the pictures that can be read as each kind of camera. "F" and "I;16…" hold distances.
_RGB_MODES = ("RGB",)
_DEPTH_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_KNOWN_MODES = {
    "L": "one channel of 8 bits",
    "LA": "grey with transparency",
    "RGBA": "RGB with transparency",
    "P": "a palette",
    "CMYK": "four inks",
    "1": "one bit",
    "RGB": "three channels of 8 bits",
    "F": "one channel of 32 bits",
    **dict.fromkeys(_DEPTH_MODES[1:], "one channel of 16 bits or more"),
}


def check_counts(meta: Any) -> None:
    """Compare the counts in meta/info.json with meta/episodes and meta/tasks.parquet, and these with themselves.

    Args:
        meta: `LeRobotDatasetMetadata`.

    Raises:
        ValueError: They differ.
    """
    episodes, tasks = meta.episodes, meta.tasks
    starts, stops = _bounds(meta)
    counts = [
        ("total_episodes", meta.total_episodes, len(starts), "meta/episodes"),
        ("total_frames", meta.total_frames, int((stops - starts).sum()), "meta/episodes"),
        ("total_tasks", meta.total_tasks, 0 if tasks is None else len(tasks), "meta/tasks.parquet"),
    ]
    for name, said, found, where in counts:
        if said != found:
            raise ValueError(
                f"meta/info.json of {meta.repo_id!r} says {name}={said}, but {where} has {found}: expected one number. Correct "
                "meta/info.json, or copy the dataset again if a file is cut short."
            )
    if episodes is not None:
        numbers = np.asarray(episodes["episode_index"])
        if not np.array_equal(numbers, np.arange(len(numbers))):
            row = int(np.flatnonzero(numbers != np.arange(len(numbers)))[0])
            raise ValueError(
                f"Row {row} of meta/episodes of {meta.repo_id!r} is episode {numbers[row]}: expected rows in the order of "
                "their episode_index from 0, by which LeRobot finds them. Sort them, or write the dataset again."
            )
        if not np.array_equal(starts, np.concatenate([[0], stops[:-1]])):
            episode = int(np.flatnonzero(starts != np.concatenate([[0], stops[:-1]]))[0])
            raise ValueError(
                f"meta/episodes of {meta.repo_id!r} says that episode {episode} begins at frame {starts[episode]}: expected "
                f"{stops[episode - 1] if episode else 0}, where the episode before it ends. Write the dataset again."
            )
    if tasks is not None and "task_index" in tasks.columns:
        order = tasks["task_index"].to_numpy()
        if not np.array_equal(order, np.arange(len(order))):
            row = int(np.flatnonzero(order != np.arange(len(order)))[0])
            raise ValueError(
                f"Row {row} of meta/tasks.parquet of {meta.repo_id!r} has task_index={order[row]}: expected rows in the order "
                "of their task_index from 0, since LeRobot takes a frame's task by its row and would read other tasks. Sort "
                'them: `t = pandas.read_parquet(f); t.sort_values("task_index").to_parquet(f)`.'
            )


def check_rows(meta: Any) -> None:
    """Compare columns, `index`, `episode_index`, `task_index` and `timestamp` of all rows on this machine with the metadata.

    Four columns are read of each data file, of a million frames in a part of a second. Files that are not on this machine
    are passed over: part of the episodes may have been downloaded.

    Args:
        meta: `LeRobotDatasetMetadata`, whose counts agree (`check_counts`).

    Raises:
        ValueError: A column or cells of it are missing, or a row is not where the metadata says, or has an unknown task.
    """
    starts, stops = _bounds(meta)
    read = np.zeros(len(starts), dtype=np.int64)
    before = 0  # rows of the files before
    is_ordered = True
    for name, index, episode, task in _row_files(meta):
        unknown = np.flatnonzero((episode < 0) | (episode >= len(starts)))
        if len(unknown):
            raise ValueError(
                f"Row {unknown[0]} of {name} of {meta.repo_id!r} belongs to episode {episode[unknown[0]]}: expected 0 to "
                f"{len(starts) - 1}, the episodes of meta/episodes. Write the dataset again."
            )
        outside = np.flatnonzero((index < starts[episode]) | (index >= stops[episode]))
        if len(outside):
            row = outside[0]
            here = episode[row]
            raise ValueError(
                f"Row {row} of {name} of {meta.repo_id!r} has index={index[row]} in episode {here}, which meta/episodes places "
                f"at {starts[here]} to {stops[here] - 1}: expected one and the same numbering, without which LeRobot reads "
                "actions of other frames. Number the rows from 0, or split and merge with lerobot-edit-dataset."
            )
        tasks = 0 if meta.tasks is None else len(meta.tasks)
        unknown = np.flatnonzero((task < 0) | (task >= tasks))
        if tasks and len(unknown):
            raise ValueError(
                f"Row {unknown[0]} of {name} of {meta.repo_id!r} has task_index={task[unknown[0]]}: expected 0 to {tasks - 1}, "
                "the tasks of meta/tasks.parquet. Add the task there, or correct the rows."
            )
        repeated = np.flatnonzero((np.diff(index) != 1) & (np.diff(episode) == 0))
        if len(repeated):
            row = repeated[0] + 1
            raise ValueError(
                f"Row {row} of {name} of {meta.repo_id!r} has index={index[row]} behind {index[row - 1]} of the same episode: "
                "expected each frame once, in order. Sort the rows, or write the dataset again."
            )
        read += np.bincount(episode, minlength=len(starts))
        is_ordered = is_ordered and np.array_equal(index, before + np.arange(len(index)))
        before += len(index)
    wrong = np.flatnonzero((read > 0) & (read != stops - starts))
    if len(wrong):
        raise ValueError(
            f"The data files of {meta.repo_id!r} hold {read[wrong[0]]} frames of episode {wrong[0]}: expected "
            f"{stops[wrong[0]] - starts[wrong[0]]}, as meta/episodes says. A file is missing or there twice: copy the dataset "
            "again."
        )
    if before == meta.total_frames and not is_ordered:
        raise ValueError(
            f"The rows of {meta.repo_id!r} are not in the order of their index, taken file by file: expected that order, since "
            "LeRobot takes a frame's place for its index. Sort the episodes in data/, or write the dataset again."
        )


def check_first_pictures(meta: Any, cameras: Iterable[str], depth: Iterable[str]) -> None:
    """Compare the first stored picture of each camera with meta/info.json; frames of videos say their format there.

    Args:
        meta: `LeRobotDatasetMetadata`.
        cameras: RGB features.
        depth: Depth features.

    Raises:
        ValueError: A picture has other channels, bits or sides than training reads.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    stored = dict.fromkeys(cameras, False) | dict.fromkeys(depth, True)
    stored = {key: is_depth for key, is_depth in stored.items() if key in meta.image_keys}
    files = data_files(meta.root)
    if not stored or not files:
        return
    with pq.ParquetFile(files[0]) as file:
        known = [key for key in stored if key in file.schema_arrow.names]
        rows = next(file.iter_batches(batch_size=1, columns=known), None)
    if rows is None or not len(rows):
        return
    for key in known:
        cell = rows[key][0].as_py()
        if not cell or not cell.get("bytes"):
            continue  # a path, which LeRobot resolves
        try:
            with Image.open(io.BytesIO(cell["bytes"])) as picture:
                mode, size = picture.mode, picture.size
        except OSError:
            continue  # reading the frame says so, by its number
        check_mode(key, mode, is_depth=stored[key])
        check_size(key, meta.features[key], size)


def check_mode(key: str, mode: str, *, is_depth: bool) -> None:
    """Raise a ValueError unless a stored picture has the channels and bits of its kind of camera.

    Args:
        key: Of the camera.
        mode: Pillow's name of the format.
        is_depth: Whether it is a depth camera.
    """
    if mode in (_DEPTH_MODES if is_depth else _RGB_MODES):
        return
    expected = (
        "one channel of distances, 16 bits or float"
        if is_depth
        else "three channels of 8 bits. Convert them (Image.convert('RGB'), 16 bits scaled to 8 before), or flag them as depth "
        "(info.is_depth_map=true in meta/info.json) if they are"
    )
    raise ValueError(
        f"The pictures of {key!r} have {_KNOWN_MODES.get(mode, 'another format')} (Pillow's mode {mode!r}): expected {expected}."
    )


def check_size(key: str, feature: dict[str, Any], size: tuple[int, int]) -> None:
    """Raise a ValueError unless a picture has the sides that meta/info.json says.

    Args:
        key: Of the camera.
        feature: Its entry in meta/info.json.
        size: Width and height of the picture.
    """
    sides = axes_of(key, feature)
    if (sides["width"], sides["height"]) != tuple(size):
        raise ValueError(
            f"A picture of {key!r} is {size[0]} x {size[1]} pixels, meta/info.json says {sides['width']} x {sides['height']}: "
            "expected one size. Correct features.shape in meta/info.json, or the picture."
        )


def check_shape(key: str, feature: dict[str, Any], shape: Sequence[int]) -> None:
    """Raise a ValueError unless a picture has the channels and sides that meta/info.json says.

    Args:
        key: Of the camera.
        feature: Its entry in meta/info.json.
        shape: Channels, height and width of the picture as it was read.
    """
    channels, height, width = shape
    expected = axes_of(key, feature)["channels"]
    if channels != expected:
        raise ValueError(
            f"A picture of {key!r} has {channels} channels, meta/info.json says {expected}: expected one number, since a batch is "
            "made of like pictures. Convert the picture."
        )
    check_size(key, feature, (width, height))


def _bounds(meta: Any) -> tuple[Indices, Indices]:
    """First frame of each episode, and the one behind its last."""
    if meta.episodes is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    starts, stops = (
        np.asarray(meta.episodes[name], dtype=np.int64) for name in ("dataset_from_index", "dataset_to_index")
    )
    return starts, stops


def _row_files(meta: Any) -> Iterator[tuple[str, Indices, Indices, Indices]]:
    """Name, `index`, `episode_index` and `task_index` of each data file, in LeRobot's order."""
    import pyarrow.parquet as pq

    columns: Sequence[str] = ("index", "episode_index", "task_index")
    expected = {*columns, *(key for key in meta.features if key not in meta.video_keys)}
    for file in data_files(meta.root):
        name = str(file.relative_to(meta.root))
        with pq.ParquetFile(file) as opened:
            missing = sorted(expected - set(opened.schema_arrow.names))
            empty = sorted(_columns_with_nulls(opened.metadata) & expected - {EVENTS, PERSISTENT})
        if missing:
            raise ValueError(
                f"{name} of {meta.repo_id!r} has no column {' and '.join(missing)}: expected all features of meta/info.json. Write "
                "the dataset again, or leave the feature out of meta/info.json and meta/stats.json."
            )
        if empty:
            raise ValueError(
                f"{name} of {meta.repo_id!r} has empty cells (null) in the column {' and '.join(empty)}: expected a value in each frame. "
                "Fill them, or delete their episodes (lerobot-edit-dataset)."
            )
        table = pq.read_table(file, columns=[*columns, "timestamp"])
        endless = np.flatnonzero(~np.isfinite(table["timestamp"].to_numpy()))
        if len(endless):
            raise ValueError(
                f"Row {endless[0]} of {name} of {meta.repo_id!r} has timestamp={table['timestamp'][int(endless[0])]}: expected seconds since "
                "the beginning of its episode. Correct it: frame_index / fps."
            )
        index, episode, task = (table[column].to_numpy().astype(np.int64) for column in columns)
        yield name, index, episode, task


def _columns_with_nulls(metadata: Any) -> set[str]:
    """Columns of numbers or texts that have empty cells, by the statistics in a parquet file."""
    leaves = [
        metadata.row_group(group).column(number)
        for group in range(metadata.num_row_groups)
        for number in range(metadata.num_columns)
    ]
    return {
        leaf.path_in_schema.partition(".list.")[0]
        for leaf in leaves
        if leaf.statistics is not None and leaf.statistics.null_count
    }
