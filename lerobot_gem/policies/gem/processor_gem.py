"""GEM's processors, under the name by which LeRobot looks them up."""

from typing import Any

import torch
from lerobot.processor import PolicyProcessorPipeline

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.processors import make_gem_pipelines


def make_gem_pre_post_processors(
    config: GemConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline]:
    """Pre- and post-processor of a new GEM; a checkpoint brings its own."""
    return make_gem_pipelines(config, dataset_stats, answers=True)
