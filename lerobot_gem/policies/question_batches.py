"""Questions that a policy learns beside actions: those of the robot's own frames, or of a second dataset.

LeRobot 0.6.1 gives a training run one dataset, and refuses to mix datasets of other features. So the policy reads the second one by
itself, when it is trained and nothing else: a few questions for each batch, drawn evenly over its frames, through the same steps that
stage 3 uses.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.collate import lerobot_collate_fn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.token_options import CoTrainingConfig
from lerobot_gem.processing.depth_cameras import is_depth
from lerobot_gem.processing.language import MESSAGES
from lerobot_gem.processing.steps import (
    OBS_ROW_SAMPLES,
    OBS_SHOWN,
    QUESTION_KEYS,
    LanguageRowsStep,
    PromptStep,
)
from lerobot_gem.storage.language_rows import bound_language, has_language
from lerobot_gem.storage.opening import DatasetOptions, open_dataset

logger = logging.getLogger(__name__)

# `built.questions` in words.
_TRAINED = {
    "": "without questions (co_training.loss_weight=0)",
    "frames": "with questions about the robot's own frames (without co_training.repo_id)",
    "dataset": "with questions of a second dataset (co_training.repo_id)",
}
# More than any training draws; the sampler draws a few at a time.
_FOREVER = 2**40


class QuestionBatches:
    """Questions of a dataset, drawn with replacement.

    Args:
        dataset: Of questions.
        steps: From its collated frames to prompts.
        share: Questions as a share of the batch that they are learned with.
        num_workers: Processes that read the frames.
    """

    def __init__(
        self, dataset: Dataset, steps: PolicyProcessorPipeline, *, share: float, num_workers: int
    ) -> None:
        self._dataset, self._steps, self._share, self._num_workers = dataset, steps, share, num_workers
        self._batches: Iterator[dict[str, Any]] | None = None
        self._largest = 0

    def draw(self, batch_size: int, device: torch.device) -> dict[str, Tensor]:
        """Prompts with labels and images, as `PromptStep` writes them, each counted for a sample of the batch.

        Args:
            batch_size: Samples B that they are learned with. How many questions there are is settled by the largest until now, since
                a run may go on with the last, small batch of an epoch.
            device: Where to.
        """
        if self._batches is None or batch_size > self._largest:
            self._largest = batch_size
            questions = max(1, round(self._share * batch_size))
            logger.info(
                "Learning questions beside actions: %d for each batch of %d (co_training.share=%g, at least 1), drawn from %d frames.",
                *(questions, batch_size, self._share, len(self._dataset)),  # type: ignore[arg-type]
            )
            self._batches = iter(self._loader(questions))
        frames = next(self._batches)
        moved = {
            key: value.to(device) if isinstance(value, Tensor) else value for key, value in frames.items()
        }
        prompts = self._steps(moved)
        asked = {key: prompts[key] for key in QUESTION_KEYS}
        # Spread evenly, since a part of the batch is computed with the questions of its samples.
        questions, shown = len(frames["index"]), asked[OBS_SHOWN]
        samples = torch.arange(questions, device=device) * batch_size // questions
        images = torch.stack([samples[shown[:, 0]], shown[:, 1]], dim=1)
        return asked | {OBS_ROW_SAMPLES: samples[asked[OBS_ROW_SAMPLES]], OBS_SHOWN: images}

    def _loader(self, questions: int) -> DataLoader:
        # Of the step and the process that draws first (training/draws.py).
        generator = torch.Generator().manual_seed(torch.initial_seed())
        sampler = RandomSampler(self._dataset, replacement=True, num_samples=_FOREVER, generator=generator)  # type: ignore[arg-type]
        return DataLoader(
            self._dataset,
            batch_size=questions,
            sampler=sampler,
            collate_fn=lerobot_collate_fn,
            num_workers=self._num_workers,
            generator=generator,
        )


def build_question_batches(
    config: GemVLAConfig, dataset_meta: Any, *, weights_follow: bool
) -> QuestionBatches | None:
    """The questions of a second dataset, None where none is read; binds those of the robot's own frames to the step.

    Args:
        config: Of the policy; its images are settled.
        dataset_meta: Metadata of the training dataset, when there is one.
        weights_follow: A checkpoint's weights will be loaded next.

    Raises:
        ValueError: The dataset has no questions, or the checkpoint has learned none.
    """
    if dataset_meta is None:
        return None
    if "language" not in config.loss_weights:
        config.built.questions = ""  # what is trained on without them does not keep the layers that answer
        return None
    options = config.co_training
    asked = "frames" if config.asks_about_frames else "dataset"
    # A checkpoint's processor is the one that was saved; and one that learned no answers may lack the last layers.
    if weights_follow and config.built.questions != asked:
        raise ValueError(
            f"co_training.loss_weight={options.loss_weight:g}, co_training.repo_id={options.repo_id!r}: the checkpoint was trained "
            f"{_TRAINED[config.built.questions]}. Expected the same, or a new policy (--policy.backbone.pretrained=<gem checkpoint or Qwen3-VL> "
            "instead of --policy.path)."
        )
    if not weights_follow:
        config.built.questions = asked
    if asked == "frames":
        _require_questions(dataset_meta, options)
        LanguageRowsStep.bind(bound_language(dataset_meta))
        return None
    dataset = _open(options)
    _require_questions(dataset.meta, options)
    cameras = [key for key in dataset.meta.camera_keys if not is_depth(dataset.meta.features[key])]
    if not cameras:
        raise ValueError(
            f"co_training.repo_id={options.repo_id!r} has no camera: expected questions about pictures. Take another dataset."
        )
    images = replace(config.images, cameras=cameras, layout="separate")
    LanguageRowsStep.bind(bound_language(dataset.meta))
    source = config.sources.backbone
    if weights_follow and config.pretrained_path is not None:
        source = open_checkpoint(str(config.pretrained_path))
    steps = [
        LanguageRowsStep(),
        PromptStep(**asdict(images), tokenizer=load_tokenizer(source), answers=True),
    ]
    return QuestionBatches(
        dataset,
        PolicyProcessorPipeline(steps=steps, name="gem_questions"),
        share=options.share,
        num_workers=options.num_workers,
    )


def _open(options: CoTrainingConfig) -> LeRobotDataset:
    """The second dataset; its errors name the options of this policy."""
    root = None if options.root is None else Path(options.root)
    try:
        return open_dataset(DatasetOptions(str(options.repo_id), root))
    except (OSError, ValueError) as error:
        said = str(error).replace("--dataset.", "--policy.co_training.")
        raise type(error)(f"co_training.repo_id={options.repo_id!r}: {said}") from error


def _require_questions(meta: Any, options: CoTrainingConfig) -> None:
    """Raise a ValueError if a dataset has no questions."""
    if not has_language(meta):
        raise ValueError(
            f"co_training.loss_weight={options.loss_weight:g}: {meta.repo_id!r} has no questions: expected language columns (lerobot-annotate, "
            f"lerobot-gem-libero-demos --qa=true) or a column {MESSAGES!r} (lerobot-gem-import). Take such a dataset, or name one in "
            "--policy.co_training.repo_id."
        )
