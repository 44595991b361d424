"""`--env.type=gem_so101` as a configuration."""

from pathlib import Path

import pytest
import yaml

from lerobot_gem.envs.configuration_so101 import SO101EnvConfig
from lerobot_gem.validation import ConfigurationError


def test_features_are_those_of_the_pictures_asked_for():
    config = SO101EnvConfig(observation_height=48, observation_width=64)
    assert config.features["pixels/front"].shape == (48, 64, 3)
    assert config.features_map["pixels/side"] == "observation.images.side"
    assert config.type == "gem_so101"


@pytest.mark.parametrize("wrong", [{"task": "pour"}, {"fps": 0}, {"episode_length": 0}])
def test_wrong_values_are_named(wrong):
    [name] = wrong
    with pytest.raises(ConfigurationError, match=rf"env\.{name}="):
        SO101EnvConfig(**wrong)


def test_the_shipped_file_is_of_this_environment():
    file = Path(__file__).parents[2] / "configs" / "env" / "so101_pick_place.yaml"
    env = yaml.safe_load(file.read_text())["env"]
    assert env.pop("type") == "gem_so101"
    SO101EnvConfig(**env)
