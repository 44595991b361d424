"""GEM-VLA's processors, under the name by which LeRobot looks them up."""

from typing import Any

import torch
from lerobot.processor import PolicyProcessorPipeline

from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.processors import make_gem_pipelines


def make_gem_vla_pre_post_processors(
    config: GemVLAConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline]:
    """Pre- and post-processor of a new GEM-VLA; a checkpoint brings its own."""
    return make_gem_pipelines(config, dataset_stats, answers=False, questions=config.asks_about_frames)
