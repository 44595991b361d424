"""The one list of steps."""

import pytest
import torch
from lerobot.processor import DeviceProcessorStep

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.processors import make_gem_pipelines
from lerobot_gem.processing.steps import OBS_GRID_THW, OBS_PIXEL_VALUES, PromptStep


def test_images_are_cut_behind_the_device_step_as_the_configuration_says(make_policy, batch):
    policy, preprocess, _ = make_policy()
    kinds = [type(step) for step in preprocess.steps]
    assert kinds.index(DeviceProcessorStep) < kinds.index(PromptStep)
    processed = preprocess(batch)
    patches, grid = policy.config.images.patches(processed)
    assert torch.equal(processed[OBS_PIXEL_VALUES], patches)
    assert torch.equal(processed[OBS_GRID_THW], grid)


def test_a_policy_that_was_not_built_has_no_processors():
    with pytest.raises(ValueError, match="Build the policy first"):
        make_gem_pipelines(GemConfig(preset="tiny", device="cpu"), answers=True)
