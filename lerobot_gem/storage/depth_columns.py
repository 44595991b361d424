"""A copy of a LeRobotDataset v3.0 with depth features beside its cameras.

One pass over the files: everything is copied as it is, data files get a column per camera whose depth is images, videos
of depth mirror the RGB camera's files, and the metadata gets features, statistics and places of the videos. LeRobot's own
`add_features` takes no videos and writes no statistics (see also `data_files`).
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_gem.processing.depth_cameras import depth_key
from lerobot_gem.storage.data_files import IMAGE, add_columns, data_files
from lerobot_gem.storage.depth_files import (
    DepthSummary,
    depth_encoder,
    read_pngs,
    read_summary,
    require_frames,
    video_file,
)

_INFO, _STATS, _EPISODES = "meta/info.json", "meta/stats.json", "meta/episodes"


def add_depth_features(
    source: Path,
    destination: Path,
    folders: Mapping[int, Path],
    storage: Mapping[str, str],
    info: Mapping[str, Any],
) -> dict[str, list[DepthSummary]]:
    """Copy a dataset and give cameras depth.

    Args:
        source: Folder of the dataset, which is only read.
        destination: Folder to make. Until its last file, meta/info.json, is written, LeRobot can't load it.
        folders: Episode -> folder that `EpisodeDepthWriter` made, with the keys `depth_key(camera)`; of all episodes.
        storage: RGB feature that gets depth -> "image" or "video", as the writer stored it; videos beside videos only.
        info: What the new features' `info` holds beside LeRobot's own entries.

    Returns:
        Depth key -> one summary per episode.
    """
    from lerobot.datasets.io_utils import load_info

    description = json.loads((source / _INFO).read_text())
    images = [depth_key(camera) for camera in storage if storage[camera] == "image"]
    videos = [camera for camera in storage if storage[camera] == "video"]
    summaries = {episode: read_summary(folder) for episode, folder in sorted(folders.items())}
    episodes = _read_episodes(source)

    changed = [source / _INFO, source / _STATS, source / _EPISODES, *([source / "data"] if images else [])]
    _copy(source, destination, changed)
    if images:
        features = {**load_info(source).features, **dict.fromkeys(images, {"dtype": "image"})}
        columns = _depth_images(folders, images, episodes["dataset_from_index"].to_dict())
        for file in data_files(source):
            add_columns(file, destination / file.relative_to(source), columns, features)
    places: dict[str, pd.DataFrame] = {}
    for camera in videos:
        template = destination / description["video_path"]
        places[depth_key(camera)] = _join_videos(camera, episodes, folders, str(template), description["fps"])

    for file in sorted((source / _EPISODES).glob("*/*.parquet")):
        _add_metadata(file, destination / file.relative_to(source), summaries, places)
    _write_stats(source, destination, summaries)
    for camera in storage:
        key = depth_key(camera)
        some = next(iter(summaries.values()))[key]
        description["features"][key] = {
            "dtype": storage[camera],
            "shape": [some.height, some.width, 1],
            "names": ["height", "width", "channels"],
            "info": {
                **_video_info(destination, places.get(key), description, key),
                "is_depth_map": True,
                **info,
            },
        }
    _write_json(destination / _INFO, description)
    return {
        depth_key(camera): [entry[depth_key(camera)] for entry in summaries.values()] for camera in storage
    }


def _copy(source: Path, destination: Path, left_out: list[Path]) -> None:
    """Copy a folder, with the files that links of the Hub's cache point to; without `left_out` and hidden files."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith(".") or Path(folder) / name in left_out]

    shutil.copytree(source, destination, ignore=ignored)


def _read_episodes(source: Path) -> pd.DataFrame:
    """Where each episode's frames are, indexed by episode."""
    from lerobot.datasets.io_utils import load_episodes

    table: Any = load_episodes(source).to_pandas()
    return table.set_index("episode_index").sort_index()


def _depth_images(
    folders: Mapping[int, Path], keys: list[str], starts: Mapping[int, int]
) -> Callable[[pa.Table], dict[str, pa.Array]]:
    """What `add_columns` asks for the columns of depth images.

    Args:
        folders: Episode -> folder of its depth.
        keys: Depth keys of the columns.
        starts: Episode -> `index` of its first frame.
    """

    def columns(table: pa.Table) -> dict[str, pa.Array]:
        if not len(table):
            return {key: pa.array([], type=IMAGE) for key in keys}
        episode = table["episode_index"][0].as_py()
        places = [index - starts[episode] for index in table["index"].to_pylist()]
        return {key: _images(read_pngs(folders[episode], key), places) for key in keys}

    return columns


def _images(pngs: list[bytes], places: list[int]) -> pa.Array:
    return pa.array([{"bytes": pngs[place], "path": None} for place in places], type=IMAGE)


def _join_videos(
    camera: str, episodes: pd.DataFrame, folders: Mapping[int, Path], template: str, fps: int
) -> pd.DataFrame:
    """Join episodes' videos to the files that the RGB camera's are in; returns columns of episode metadata."""
    from lerobot.datasets.video_utils import concatenate_video_files

    key, prefix = depth_key(camera), f"videos/{camera}/"
    place = [prefix + "chunk_index", prefix + "file_index"]
    parts = []
    for (chunk, number), group in episodes.groupby(place):
        group = group.sort_values(prefix + "from_timestamp")
        path = Path(template.format(video_key=key, chunk_index=chunk, file_index=number))
        path.parent.mkdir(parents=True, exist_ok=True)
        concatenate_video_files([video_file(folders[episode], key) for episode in group.index], path)
        require_frames(path, int(group["length"].sum()))
        ends = group["length"].cumsum()
        times = {"from_timestamp": (ends - group["length"]) / fps, "to_timestamp": ends / fps}
        columns = {"chunk_index": chunk, "file_index": number, **times}
        parts.append(pd.DataFrame({f"videos/{key}/{name}": value for name, value in columns.items()}))
    return pd.concat(parts)


def _add_metadata(
    file: Path,
    target: Path,
    summaries: Mapping[int, dict[str, DepthSummary]],
    places: Mapping[str, pd.DataFrame],
) -> None:
    """Copy a file of episode metadata with statistics of depth and places of its videos."""
    # Without the schema's metadata, in which datasets and pandas list the columns.
    table = pq.read_table(file).replace_schema_metadata(None)
    episodes = table["episode_index"].to_pylist()
    for columns in places.values():
        for name, values in columns.loc[episodes].items():
            table = table.append_column(name, pa.array(values))
    for key in next(iter(summaries.values())):
        stats = [_lerobot_stats(summaries[episode][key]) for episode in episodes]
        for name in stats[0]:
            values = [entry[name].tolist() for entry in stats]
            table = table.append_column(f"stats/{key}/{name}", pa.array(values))
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target)


def _write_stats(source: Path, destination: Path, summaries: Mapping[int, dict[str, DepthSummary]]) -> None:
    """The dataset's statistics: those there are, and depth's by LeRobot's own aggregation over episodes."""
    from lerobot.datasets.compute_stats import aggregate_stats
    from lerobot.datasets.utils import serialize_dict

    there = json.loads((source / _STATS).read_text()) if (source / _STATS).exists() else {}
    episodes = [{key: _lerobot_stats(entry[key]) for key in entry} for entry in summaries.values()]
    depth = serialize_dict(aggregate_stats(episodes))
    # In the order of the cameras: LeRobot's is that of a set, another in each process.
    _write_json(destination / _STATS, {**there, **{key: depth[key] for key in episodes[0]}})


def _lerobot_stats(summary: DepthSummary) -> dict[str, np.ndarray]:
    """As LeRobot keeps them of images: one value per channel, (1, 1, 1), but `count` is (1,)."""
    return {
        name: np.array([int(value)]) if name == "count" else np.full((1, 1, 1), value)
        for name, value in summary.stats.items()
    }


def _video_info(
    destination: Path, places: pd.DataFrame | None, description: dict[str, Any], key: str
) -> dict[str, Any]:
    """LeRobot's entries of a feature's info: how depth videos are encoded; nothing of images."""
    from lerobot.datasets.video_utils import get_video_info

    if places is None:
        return {}
    chunk, number = (int(places.iloc[0][f"videos/{key}/{name}"]) for name in ("chunk_index", "file_index"))
    path = description["video_path"].format(video_key=key, chunk_index=chunk, file_index=number)
    return get_video_info(destination / path, video_encoder=depth_encoder())


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False))
