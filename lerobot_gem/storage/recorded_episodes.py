"""Episodes on disk before there is a dataset: images encoded once, in the files that the dataset will take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.processing.depth_cameras import DEPTH_SUFFIX
from lerobot_gem.storage.images import encode, image_suffix

_ACTION = "action.npy"


def write_episode(frames: Sequence[dict[str, NDArray[Any]]], folder: Path) -> None:
    """Keep an episode: one file for each vector, one folder for each camera.

    Args:
        frames: By feature, in order: an action, vectors, pictures (H, W, 3) in uint8 and depth (H, W, 1).
        folder: Exists.
    """
    for key in frames[0]:
        values = [frame[key] for frame in frames]
        if not key.startswith("observation.images."):
            np.save(folder / f"{key}.npy", np.stack(values))
            continue
        (folder / key).mkdir()
        suffix = image_suffix(key.endswith(DEPTH_SUFFIX))
        for index, image in enumerate(values):
            (folder / key / f"frame-{index:06d}{suffix}").write_bytes(encode(image))


def has_episode(folder: Path) -> bool:
    """Whether `write_episode` kept one there."""
    return (folder / _ACTION).exists()


def episode_length(folder: Path) -> int:
    """Frames of the episode that `write_episode` kept there."""
    return len(np.load(folder / _ACTION, mmap_mode="r"))


def read_episode(folder: Path, task: str, dataset: Any) -> dict[str, Any]:
    """An episode as `LeRobotDataset.save_episode` takes it.

    Args:
        folder: Where `write_episode` kept it.
        task: Its text.
        dataset: The LeRobotDataset that it goes to.
    """
    from lerobot.utils.constants import DEFAULT_FEATURES

    recorded: dict[str, NDArray[Any] | list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            recorded[path.name] = sorted(str(image) for image in path.iterdir())
        elif path.suffix == ".npy":
            recorded[path.stem] = np.load(path)
    columns = {key: recorded[key] for key in dataset.meta.features if key not in DEFAULT_FEATURES}
    return episode_data(len(recorded["action"]), task, columns, dataset)


def episode_data(length: int, task: str, columns: Mapping[str, Any], dataset: Any) -> dict[str, Any]:
    """The next episode as `LeRobotDataset.save_episode` takes it, which is what LeRobot's `add_frame` would collect.

    Args:
        length: Its frames.
        task: Its text.
        columns: Values of all frames, by feature: an array, a list, or the paths of image files.
        dataset: The LeRobotDataset that it goes to.
    """
    return {
        "size": length,
        "task": [task] * length,
        "episode_index": dataset.meta.total_episodes,
        "frame_index": np.arange(length),
        "timestamp": np.arange(length) / dataset.fps,
        "index": [],
        "task_index": [],
        **columns,
    }
