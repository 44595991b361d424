"""The one way to open a dataset: checks before LeRobot opens it, whose own errors do not all say what to do."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetsError
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils import constants
from pyarrow.lib import ArrowException

from lerobot_gem.storage.dataset_agreement import check_counts, check_rows
from lerobot_gem.storage.episode_files import episode_files
from lerobot_gem.storage.reasons import reason

# What LeRobot and the libraries below raise where a file is damaged, or says something else than they expect.
_UNREADABLE = (
    ArrowException,
    AttributeError,
    DatasetsError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
)


@dataclass
class DatasetOptions:
    """The dataset that a command reads: `--dataset.*`, in LeRobot's own words.

    Attributes:
        repo_id: LeRobot's name of the dataset, or its Hub id.
        root: Its folder; None for LeRobot's own place of `repo_id`, or the Hub.
        episodes: Indices of the episodes to read; None for all. Commands that write a whole dataset refuse a choice.
        revision: Branch, tag or commit on the Hub.
    """

    repo_id: str
    root: Path | None = None
    episodes: list[int] | None = None
    revision: str | None = None


def open_metadata(options: DatasetOptions) -> LeRobotDatasetMetadata:
    """Open a dataset's metadata.

    Raises:
        FileNotFoundError: `root` holds no dataset, or lacks files of it.
        OSError: It can't be read or downloaded.
        ValueError: It is of an older format, has no frames, lacks some of the episodes, or its counts do not agree.
    """
    require_current_format(options.repo_id, options.root)
    with _explained(options.repo_id, options.root):
        meta = LeRobotDatasetMetadata(options.repo_id, root=options.root, revision=options.revision)
    if meta.total_frames == 0:
        raise ValueError(f"The dataset {options.repo_id!r} has no frames: record some, or choose another.")
    require_episodes(meta, options.episodes)
    check_counts(meta)
    if options.root is not None:
        require_files(meta, options.episodes)
    return meta


def open_dataset(options: DatasetOptions, **arguments: Any) -> LeRobotDataset:
    """Open a dataset.

    Args:
        options: Which.
        **arguments: Further ones of `LeRobotDataset`, such as `depth_output_unit`.

    Raises:
        FileNotFoundError: See `open_metadata`.
        OSError: See `open_metadata`.
        ValueError: See `open_metadata`; or its rows do not agree with its metadata.
    """
    open_metadata(options)
    with _explained(options.repo_id, options.root):
        dataset = LeRobotDataset(
            options.repo_id,
            root=options.root,
            episodes=options.episodes,
            revision=options.revision,
            **arguments,
        )
        check_rows(dataset.meta)
    return dataset


@contextmanager
def _explained(repo_id: str, root: Path | str | None) -> Iterator[None]:
    """Say what to do about a dataset that can't be read."""
    try:
        yield
    except _UNREADABLE as error:
        raise OSError(
            f"Can't read the dataset {repo_id!r}: {reason(error)} {where_to_look(repo_id, root)}"
        ) from error


def where_to_look(repo_id: str, root: Path | str | None) -> str:
    """What to try where a dataset can't be read.

    Args:
        repo_id: LeRobot's name of the dataset.
        root: Its folder, if one was given.
    """
    if root is not None:
        return f"It was read from the folder {root}, as --dataset.root says: copy or record it again."
    return (
        f"There is no folder {repo_id} here, and none of that name in {constants.HF_LEROBOT_HOME}: expected the Hub id of a "
        "LeRobotDataset, which needs a network the first time, or a local folder in --dataset.root."
    )


def require_current_format(repo_id: str, root: Path | str | None) -> Path:
    """Check the copy of a dataset on this machine, if there is one; what is on the Hub only, LeRobot checks itself.

    Args:
        repo_id: LeRobot's name of the dataset.
        root: Its folder; LeRobot's own place for `repo_id` when None.

    Returns:
        Its folder, which exists if `root` was given.

    Raises:
        FileNotFoundError: `root` holds no dataset, or not all of its metadata.
        ValueError: It is of an older format; the message names LeRobot's converter. Or meta/info.json can't be read.
    """
    folder = Path(root) if root else constants.HF_LEROBOT_HOME / repo_id
    info = folder / "meta" / "info.json"
    if not info.is_file():
        if root:
            raise FileNotFoundError(
                f"No dataset in {folder}: expected a LeRobotDataset v3.0 with meta/info.json. Check the folder, or give a "
                "repo id of the Hub instead of a folder."
            )
        return folder
    try:
        described = json.loads(info.read_text())
        version = described.get("codebase_version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{info} can't be read ({error}): expected LeRobot's description of a dataset as JSON. Copy the dataset again."
        ) from error
    if version is not None and version.startswith(("v1", "v2")):
        older = ", which reads v2.1: bring it to v2.1 with an older LeRobot first."
        raise ValueError(
            f"The dataset in {folder} has format {version}, LeRobot 0.6 reads v3.0: convert it with `python -m "
            f"lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id} --root={folder} --push-to-hub=false`"
            + ("." if version == "v2.1" else older)
        )
    if root:
        _require_metadata(folder, described)
    return folder


def _require_metadata(folder: Path, info: dict[str, Any]) -> None:
    """Raise a FileNotFoundError if tables of metadata are missing, which LeRobot would ask the Hub for."""
    tables = (
        ("total_tasks", "meta/tasks.parquet"),
        ("total_episodes", "meta/episodes/*/*.parquet"),
    )
    for count, pattern in tables:
        if info.get(count) and not any(folder.glob(pattern)):
            raise FileNotFoundError(
                f"{folder} has no {pattern}, though meta/info.json says {count}={info[count]}: expected a whole LeRobotDataset "
                "v3.0. Copy the dataset again."
            )


def require_files(meta: Any, episodes: Sequence[int] | None) -> None:
    """Check that a folder holds the files of its episodes, which LeRobot would ask the Hub for.

    Args:
        meta: `LeRobotDatasetMetadata`, whose counts agree.
        episodes: Indices of the episodes that are read; None is all.

    Raises:
        FileNotFoundError: A file is missing; the first three are named.
    """
    missing = [
        (path, held[0])
        for camera in (None, *meta.video_keys)
        for path, held in episode_files(meta, camera, episodes)
        if not (meta.root / path).is_file()
    ]
    if missing:
        named = ", ".join(f"{path} (episode {episode})" for path, episode in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise FileNotFoundError(
            f"{meta.root} lacks {named}{more}: expected all files that meta/episodes names. Copy the dataset again, or read other "
            "episodes with --dataset.episodes."
        )


def require_episodes(meta: Any, episodes: Sequence[int] | None) -> None:
    """Check a choice of episodes.

    Args:
        meta: `LeRobotDatasetMetadata`.
        episodes: Their indices; None is all.

    Raises:
        ValueError: There are none of them, or some that the dataset does not have.
    """
    if episodes is None or (episodes and all(0 <= episode < meta.total_episodes for episode in episodes)):
        return
    raise ValueError(
        f"dataset.episodes={list(episodes)} of {meta.repo_id!r}: expected some of 0 to {meta.total_episodes - 1}."
    )
