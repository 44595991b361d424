"""What both configurations share."""

from types import SimpleNamespace

import pytest
from lerobot.configs import FeatureType, PolicyFeature

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.training.stages import STAGES
from lerobot_gem.validation import ConfigurationError

TINY = {"preset": "tiny", "device": "cpu"}


@pytest.mark.parametrize("stage", ["connector", "generator", "joint"])
def test_a_stage_is_trained_as_its_table_says(stage: str):
    assert GemConfig(**TINY, stage=stage).trainable_parts == STAGES[stage].trainable


@pytest.mark.parametrize(
    ("flags", "removed", "added"),
    [
        ({"freeze_vision_tower": True}, {"merger"}, set()),
        ({"freeze_vision_tower": False}, set(), {"vision_tower"}),
        ({"freeze_language_model": True}, {"language_model"}, set()),
    ],
)
def test_flags_take_precedence_over_the_stage(flags: dict, removed: set, added: set):
    config = GemConfig(**TINY, stage="joint", backbone=BackboneConfig(**flags))
    assert config.trainable_parts == (STAGES["joint"].trainable - removed) | added


def test_none_is_filled_in_with_the_presets_values():
    config = GemVLAConfig(**TINY)
    preset = config.sizes
    assert (config.cameras.min_pixels, config.cameras.max_pixels) == (preset.min_pixels, preset.max_pixels)
    assert config.depth_supervision.max_side == preset.max_depth_side
    assert (config.depth_loss_weight, GemConfig(**TINY).depth_loss_weight) == (0.0, 0.1)
    assert config.conditioning_layers == [0, 1, 2]
    assert config.n_action_steps == config.chunk_size


def test_sizes_of_the_expert_in_place_of_the_presets():
    config = GemVLAConfig(**TINY, expert=ExpertConfig(architecture={"depth": 2}))
    assert (config.expert_architecture.depth, config.conditioning_layers) == (2, [0, 1])
    with pytest.raises(ConfigurationError, match=r"expert.architecture='width' is unknown: .*'hidden_size'"):
        ExpertConfig(architecture={"width": 2})


@pytest.mark.parametrize("wrong", [-1e-4, float("nan")])
@pytest.mark.parametrize("field", ["optimizer_lr", "optimizer_lr_backbone"])
def test_a_rate_that_would_climb_the_loss_is_named(field: str, wrong: float):
    """torch looks at the optimiser's own rate, and not at those of its groups."""
    with pytest.raises(ConfigurationError, match=f"{field}={wrong}: expected at least 0"):
        GemConfig(**TINY, **{field: wrong})


def test_images_are_not_known_before_the_policy_is_built():
    with pytest.raises(ValueError, match="images of the prompt are not known yet.*Build the policy first"):
        _ = GemConfig(**TINY).images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cameras": CamerasConfig(min_pixels=0)},
            "cameras.min_pixels=0, cameras.max_pixels=16384: expected",
        ),
        ({"cameras": CamerasConfig(max_pixels=0)}, "cameras.min_pixels=4096, cameras.max_pixels=0: expected"),
        ({"depth": DepthConfig(max_side=0)}, "depth.max_side=0: expected at least"),
    ],
)
def test_zero_is_not_taken_for_nothing(options: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        GemConfig(**TINY, **options)


def test_names_of_the_state_are_those_of_the_last_data():
    config = GemVLAConfig(**TINY)
    config.input_features = {"observation.state": PolicyFeature(FeatureType.STATE, (2,))}
    for names in (["x", "y"], None):
        state = {"names": names, "shape": (2,)}
        config.record_training(SimpleNamespace(fps=5, features={"observation.state": state}))
        assert config.built.state_names == (names or [])
