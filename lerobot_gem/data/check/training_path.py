"""The way of `lerobot-train` to its first batch, through LeRobot's own functions and the policy's own code.

No rule is written a second time, but for two that stand in the middle of `train()` in lerobot_train.py, where no function
offers them: how a checkpoint's preprocessor is adapted to the dataset (`make_preprocessor`), and how the pixels of a
video become floats (`as_floats`). tests/data/check/test_training_path.py compares both with a run of `train()`.
"""

import logging
import sys
from contextlib import redirect_stdout
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import make_train_eval_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline

from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.processing.depth_cameras import axes_of
from lerobot_gem.storage.dataset_agreement import check_counts
from lerobot_gem.storage.opening import (
    require_current_format,
    require_episodes,
    require_files,
    where_to_look,
)
from lerobot_gem.storage.reasons import reason

Item = dict[str, Any]


def open_for_training(
    config: TrainPipelineConfig, policy: PreTrainedConfig
) -> tuple[LeRobotDatasetMetadata, LeRobotDataset | None]:
    """Open what a training of `policy` reads: the whole dataset, or its part for training with `dataset.eval_split`.

    A training that streams is opened as such, too, so that its errors are found; what is inspected is on disk.

    Returns:
        Metadata, and the dataset, which is None if it has no frames.

    Raises:
        FileNotFoundError: There is no dataset, or files of it are missing.
        ValueError: It is of another format, its parts do not agree, or LeRobot can't open it; with what LeRobot says.
    """
    data = config.dataset
    folder = require_current_format(data.repo_id, data.root)
    training = copy(config)
    training.policy = policy
    try:
        meta = LeRobotDatasetMetadata(data.repo_id, root=data.root, revision=data.revision)
    except Exception as error:  # Hub client, pyarrow and draccus have their own; nothing can be inspected
        raise _not_opened(config, folder, reason(error), where_to_look(data.repo_id, data.root)) from error
    require_episodes(meta, data.episodes)
    if meta.total_frames == 0:
        return meta, None
    check_counts(meta)
    if data.root is not None:
        require_files(meta, data.episodes)
    for key in meta.camera_keys:
        axes_of(key, meta.features[key])  # without which LeRobot has a TypeError, or another size
    try:
        dataset, _ = make_train_eval_datasets(training)
        if (
            getattr(dataset, "num_shards", None) == 0
        ):  # a stream, which LeRobot cuts into a part for each worker
            raise ValueError(
                f"it would be streamed without a frame: expected --num_workers=1 or more, got {config.num_workers}; or "
                "--dataset.streaming=false."
            )
        if data.streaming:
            training.dataset = replace(data, streaming=False)
            dataset, _ = make_train_eval_datasets(training)
    except (KeyError, TypeError) as error:
        raise _not_opened(config, folder, _of_statistics(config, meta) or reason(error)) from error
    except Exception as error:
        raise _not_opened(config, folder, reason(error)) from error
    return dataset.meta, dataset


def _not_opened(config: TrainPipelineConfig, folder: Path, *why: str) -> ValueError:
    sentences = [part if part.endswith((".", "!")) else f"{part}." for part in why]
    return ValueError(
        f"The dataset {config.dataset.repo_id!r} can't be opened ({folder}): {' '.join(sentences)}"
    )


def _of_statistics(config: TrainPipelineConfig, meta: LeRobotDatasetMetadata) -> str | None:
    """Why LeRobot fails to replace cameras' statistics by ImageNet's, in words; None if it has all that it needs."""
    if not config.dataset.use_imagenet_stats:
        return None
    lacking = [key for key in meta.camera_keys if key not in (meta.stats or {})]
    if not lacking:
        return None
    what = (
        "meta/stats.json is missing"
        if meta.stats is None
        else f"meta/stats.json has no entry for {', '.join(lacking)}"
    )
    return (
        f"{what}: expected statistics of each camera, which LeRobot replaces by ImageNet's. Recompute them with "
        "lerobot-edit-dataset --operation.type=recompute_stats, or, since these policies use none of images, take "
        "--dataset.use_imagenet_stats=false."
    )


def bind(config: PreTrainedConfig, meta: LeRobotDatasetMetadata, rename_map: dict[str, str]) -> None:
    """Tell a configuration its dataset: let LeRobot build the policy, with weights that have shapes and no values.

    Args:
        config: Of the policy; what the policy writes into it is in it afterwards.
        meta: Metadata of the dataset.
        rename_map: LeRobot's, for a checkpoint whose cameras have other names.

    Raises:
        Exception: Whatever training would raise.
    """
    device, config.device = config.device, "meta"
    warnings = logging.getLogger(BaseGemConfig.__module__.rpartition(".")[0])
    level = warnings.level
    warnings.setLevel(logging.ERROR)  # the report has them, once for all stages
    try:
        # LeRobot prints that it loads weights, which is no part of our page.
        with init_empty_weights(), redirect_stdout(sys.stderr):
            make_policy(config, ds_meta=meta, rename_map=rename_map)
    finally:
        config.device = device
        warnings.setLevel(level)


def make_preprocessor(
    config: PreTrainedConfig, meta: LeRobotDatasetMetadata, rename_map: dict[str, str]
) -> PolicyProcessorPipeline:
    """The steps from a batch to the policy.

    Args:
        config: Of the policy, bound to the dataset.
        meta: Metadata of the dataset.
        rename_map: LeRobot's, for a checkpoint whose cameras have other names.

    Raises:
        Exception: Whatever training would raise.
    """
    arguments: dict[str, Any] = {}
    if config.pretrained_path:
        arguments["preprocessor_overrides"] = {
            "device_processor": {"device": config.device},
            "normalizer_processor": {
                "features": {**(config.input_features or {}), **(config.output_features or {})},
                "norm_map": config.normalization_mapping,
                "stats": meta.stats,
            },
            "rename_observations_processor": {"rename_map": rename_map},
        }
    preprocess, _ = make_pre_post_processors(
        config,
        pretrained_path=str(config.pretrained_path) if config.pretrained_path else None,
        pretrained_revision=config.pretrained_revision,
        dataset_stats=meta.stats,
        **arguments,
    )
    return preprocess


def as_floats(item: Item, cameras: list[str]) -> Item:
    """A frame with the pixels of its RGB cameras in [0, 1]; those of videos LeRobot delivers as uint8."""
    pixels = {key: item[key] for key in cameras if key in item and item[key].dtype == torch.uint8}
    return {**item, **{key: values.to(dtype=torch.float32) / 255.0 for key, values in pixels.items()}}
