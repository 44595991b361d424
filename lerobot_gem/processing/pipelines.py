"""The one list of processor steps that both policies use."""

from typing import Any

import torch
from lerobot.processor import (
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import OBS_STATE

from lerobot_gem.processing.steps import CheckObservationStep, PromptStep
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer, load_tokenizer


def make_gem_pipelines(
    config: Any, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Build the pre- and post-processor of a policy whose features are settled.

    Args:
        config: `GemVLAConfig` of a built policy (its `backbone.architecture` is known).
        dataset_stats: Statistics for normalisation, by feature.
    """
    pretrained = config.backbone.pretrained
    vision = config.backbone.architecture["vision_config"]
    prompt = PromptStep(
        cameras=list(config.cameras.names),
        layout=config.cameras.layout,
        patch_size=vision["patch_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        merge_size=vision["spatial_merge_size"],
        min_pixels=config.cameras.min_pixels,
        max_pixels=config.cameras.max_pixels,
        tokenizer=load_tokenizer(pretrained) if pretrained else build_tiny_tokenizer(),
    )
    state = config.state_feature
    check = CheckObservationStep(state_sizes={OBS_STATE: state.shape[0]} if state else {})

    default = make_default_policy_processor_steps(config, dataset_stats)
    return make_policy_processor_pipelines(
        input_steps=[
            default.rename_observations,
            default.add_batch_dim,
            check,
            prompt,
            default.to_device,
            default.normalize,
        ],
        output_steps=[default.unnormalize, default.to_cpu],
    )
