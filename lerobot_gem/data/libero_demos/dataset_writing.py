"""Writes the dataset of a collection from the files of its attempts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from lerobot_gem.data.libero_demos.attempt_files import (
    Attempt,
    read_language,
    scenes_file,
)
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.writing import write_language
from lerobot_gem.simulation.scene import ACTION_DIM, CAMERAS, STATE_DIM
from lerobot_gem.storage.images import image_features
from lerobot_gem.storage.output_folder import published
from lerobot_gem.storage.recorded_episodes import read_episode
from lerobot_gem.storage.single_frames import FrameBatch, append_frames


@dataclass(frozen=True)
class StoredAttempt:
    """A successful attempt on disk.

    Attributes:
        attempt: Which one.
        folder: Where `write_attempt` put it.
        instruction: What was to be done.
    """

    attempt: Attempt
    folder: Path
    instruction: str


@dataclass(frozen=True)
class TaskReport:
    """How many demonstrations of a task succeeded, of how many attempts or recorded ones."""

    task_id: int
    instruction: str
    successes: int
    attempts: int


def dataset_features(height: int, width: int, depth: bool) -> dict[str, dict[str, Any]]:
    """LeRobot features of the dataset: keys and shapes of LeRobot's libero env, plus depth in metres."""
    features = image_features(CAMERAS, height, width, depth=depth)
    state = [*(f"eef.{a}" for a in ("x", "y", "z")), *(f"eef.r{a}" for a in ("x", "y", "z"))]
    state += ["gripper.0", "gripper.1"]
    action = [*(f"delta.{a}" for a in ("x", "y", "z", "rx", "ry", "rz")), "gripper"]
    features["observation.state"] = {"dtype": "float32", "shape": (STATE_DIM,), "names": state}
    features["action"] = {"dtype": "float32", "shape": (ACTION_DIM,), "names": action}
    return features


def write_dataset(
    config: LiberoDemosConfig, stored: Sequence[StoredAttempt], reports: Sequence[TaskReport]
) -> None:
    """Write the dataset to the collection's root, where it appears when it is complete.

    Args:
        config: Of the collection.
        stored: Its attempts, in the order of the dataset: by task, demonstrations before scenes.
        reports: For `collection.json`.
    """
    with published(config.output.root, overwrite=config.overwrite) as writing:
        _write(config, writing, stored, reports)


def _write(
    config: LiberoDemosConfig, root: Path, stored: Sequence[StoredAttempt], reports: Sequence[TaskReport]
) -> None:
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from tqdm.auto import tqdm

    datasets.disable_progress_bars()  # one bar per episode otherwise
    dataset: LeRobotDataset | None = LeRobotDataset.create(
        config.output.repo_id,
        fps=config.fps,
        features=dataset_features(config.image_size, config.image_size, config.depth),
        root=root,
        robot_type="panda",
        use_videos=False,
    )
    with tqdm(stored, desc="writing") as progress:
        for scenes, group in groupby(progress, key=lambda one: one.attempt.scenes > 0):
            if not scenes:
                dataset = dataset or LeRobotDataset.resume(config.output.repo_id, root=root)
                for one in group:
                    dataset.save_episode(episode_data=read_episode(one.folder, one.instruction, dataset))
            if dataset is not None:
                dataset.finalize()
                dataset = None
            if scenes:
                append_frames(root, (_batch(one) for one in group))
    report: dict[str, Any] = {"settings": config.content(), "tasks": [asdict(r) for r in reports]}
    if config.qa is not None:
        languages = ((one.attempt.scenes > 0, read_language(one.folder)) for one in stored)
        report["questions"] = write_language(root, config.qa, config.fps, languages)
    (root / "collection.json").write_text(json.dumps(report, indent=1))


def _batch(one: StoredAttempt) -> FrameBatch:
    return FrameBatch(scenes_file(one.folder), one.instruction, one.attempt.scenes)
