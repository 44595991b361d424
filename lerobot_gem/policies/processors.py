"""The one list of processor steps that both policies use."""

from dataclasses import asdict
from typing import Any

import torch
from lerobot.processor import (
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import OBS_STATE

from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.processing.images import camera_images
from lerobot_gem.processing.steps import CheckObservationStep, LanguageRowsStep, PromptStep


def make_gem_pipelines(
    config: Any, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None, *, answers: bool
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Build the pre- and post-processor of a policy whose features are settled.

    Args:
        config: `GemConfig` or `GemVLAConfig` of a built policy (its `backbone.architecture` is known).
        dataset_stats: Statistics for normalisation, by feature.
        answers: Prompts are questions with answers to be learned, instead of tasks to act on.
    """
    state = config.state_feature
    check = CheckObservationStep(state_sizes={OBS_STATE: state.shape[0]} if state else {})

    source = config.backbone.pretrained
    default = make_default_policy_processor_steps(config, dataset_stats)
    return make_policy_processor_pipelines(
        input_steps=[
            default.rename_observations,
            *([LanguageRowsStep()] if answers else []),
            default.add_batch_dim,
            check,
            PromptStep(
                **asdict(camera_images(config)),
                tokenizer=load_tokenizer(None if source is None else open_checkpoint(source)),
                answers=answers,
            ),
            default.to_device,
            default.normalize,
        ],
        output_steps=[default.unnormalize, default.to_cpu],
    )
