"""What a policy was trained on, from its checkpoint and, where it can be found, its dataset."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from lerobot.configs.train import TRAIN_CONFIG_NAME
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline
from lerobot.utils import constants
from lerobot.utils.constants import ACTION, OBS_STATE
from numpy.typing import NDArray
from torch import Tensor

from lerobot_gem.processing.dataset_names import flat_names
from lerobot_gem.robots.findings import Preflight
from lerobot_gem.storage.opening import DatasetOptions, open_dataset, open_metadata

# Frames whose pictures are compared with the cameras', and most episodes that they are taken from.
_FRAMES = 8

Array = NDArray[np.floating]


@dataclass
class TrainingFacts:
    """What is known of the training data; None or empty where it is not.

    Attributes:
        fps: Frames per second.
        names: OBS_STATE and ACTION -> the names of their numbers.
        lowest: OBS_STATE and ACTION -> smallest values.
        highest: OBS_STATE and ACTION -> largest values.
        tasks: Texts of the tasks.
        pictures: Camera -> pictures (N, H, W, 3) uint8 of some frames.
    """

    fps: float | None = None
    names: dict[str, list[str]] = field(default_factory=dict)
    lowest: dict[str, Array] = field(default_factory=dict)
    highest: dict[str, Array] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def training_facts(
    found: Preflight,
    config: Any,
    preprocessor: PolicyProcessorPipeline,
    checkpoint: str,
    training_data: str | None,
) -> TrainingFacts:
    """Gather them. A dataset adds to what the checkpoint says; one that says something else is an error, and is not read.

    Args:
        found: Where it is written that there is no dataset, or the wrong one.
        config: Of the policy.
        preprocessor: Of the policy, whose normaliser has the statistics.
        checkpoint: Folder or Hub id of the policy.
        training_data: Folder or repo id of its dataset; None looks where the checkpoint says, on this machine alone.

    Raises:
        OSError: The dataset can't be read.
        ValueError: It is no dataset of today's format.
    """
    facts = TrainingFacts(fps=config.built.fps)
    facts.names = {
        OBS_STATE: list(config.built.state_names),
        ACTION: list(config.action_feature_names or []),
    }
    for step in preprocessor.steps:
        if isinstance(step, NormalizerProcessorStep):
            facts.lowest, facts.highest = _ranges(step.state_dict())
    options = _dataset_options(checkpoint, config.pretrained_revision, training_data)
    if options is None:
        found.add(
            "training data",
            "warning",
            "They are not on this machine: give --training_data=<folder or repo id> to compare pictures and tasks.",
        )
        return facts
    meta = open_metadata(options)
    fps, names = float(meta.fps), {key: _names(meta, key) for key in (OBS_STATE, ACTION)}
    others = _contradictions(facts, fps, names)
    if others:
        found.add(
            "training data",
            "error",
            f"{options.root or options.repo_id} is not the data this policy was trained on: {'; '.join(others)}. Give "
            "--training_data=<its folder or repo id>.",
        )
        return facts
    facts.fps = fps if facts.fps is None else facts.fps
    facts.names = {key: facts.names[key] or names[key] for key in names}
    facts.tasks = [str(task) for task in meta.tasks.index]
    # Of a dataset on the Hub, the files of these episodes alone are downloaded.
    episodes = _spread(meta.total_episodes)
    facts.pictures = _pictures(open_dataset(replace(options, episodes=episodes)), config.camera_names)
    return facts


def _names(meta: LeRobotDatasetMetadata, key: str) -> list[str]:
    feature = meta.features.get(key) or {}
    return flat_names(key, feature["names"], feature["shape"][0]) if feature.get("names") else []


def _contradictions(facts: TrainingFacts, fps: float, names: Mapping[str, list[str]]) -> list[str]:
    """What a dataset says otherwise than the checkpoint; where one of them says nothing, there is none."""
    contradictions = []
    if facts.fps not in (None, fps):
        contradictions.append(f"it has {fps:g} frames per second, the policy {facts.fps:g}")
    for key, ours in facts.names.items():
        if ours and names[key] and ours != names[key]:
            contradictions.append(f"its {key} is {', '.join(names[key])}, the policy's {', '.join(ours)}")
    return contradictions


def _spread(count: int) -> list[int]:
    """Up to `_FRAMES` indices from the first to the last."""
    return np.linspace(0, count - 1, min(_FRAMES, count)).astype(int).tolist()


def _ranges(stats: Mapping[str, Tensor]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Smallest and largest values of what has both."""
    known = [key for key in (OBS_STATE, ACTION) if {f"{key}.min", f"{key}.max"} <= stats.keys()]
    lowest, highest = (
        {key: stats[f"{key}.{name}"].double().numpy() for key in known} for name in ("min", "max")
    )
    return lowest, highest


def _dataset_options(
    checkpoint: str, revision: str | None, training_data: str | None
) -> DatasetOptions | None:
    if training_data is not None:
        if Path(training_data).is_dir():
            return DatasetOptions(f"local/{Path(training_data).resolve().name}", Path(training_data))
        return DatasetOptions(training_data)
    file = _train_config(checkpoint, revision)
    if file is None:
        return None
    trained = json.loads(file.read_text()).get("dataset") or {}
    repo_id = str(trained.get("repo_id"))
    root = Path(trained.get("root") or constants.HF_LEROBOT_HOME / repo_id)
    return DatasetOptions(repo_id, root) if (root / "meta" / "info.json").is_file() else None


def _train_config(checkpoint: str, revision: str | None) -> Path | None:
    if Path(checkpoint).is_dir():
        file = Path(checkpoint) / TRAIN_CONFIG_NAME
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(checkpoint, TRAIN_CONFIG_NAME, revision=revision))
    except EntryNotFoundError:
        return None


def _pictures(dataset: LeRobotDataset, cameras: list[str]) -> dict[str, NDArray[np.uint8]]:
    frames = [dataset[index] for index in _spread(len(dataset))]
    pictures = {}
    for camera in cameras:
        if camera in dataset.meta.features:
            stacked = np.stack([frame[camera].movedim(0, -1).numpy() for frame in frames])
            pictures[camera] = (stacked * 255).round().astype(np.uint8)
    return pictures
