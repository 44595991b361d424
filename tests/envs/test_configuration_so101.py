"""`--env.type=gem_so101` as a configuration."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lerobot_gem.envs.configuration_so101 import SO101EnvConfig


def test_features_are_those_of_the_pictures_asked_for():
    config = SO101EnvConfig(observation_height=48, observation_width=64)
    assert config.features["pixels/front"].shape == (48, 64, 3)
    assert config.features_map["pixels/side"] == "observation.images.side"
    assert config.type == "gem_so101"


@pytest.mark.parametrize("wrong", [{"task": "pour"}, {"fps": 0}, {"episode_length": 0}])
def test_wrong_values_are_named(wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=rf"env\.{name}="):
        SO101EnvConfig(**wrong)


def test_the_shipped_file_is_of_this_environment():
    file = Path(__file__).parents[2] / "configs" / "env" / "so101_pick_place.yaml"
    env = yaml.safe_load(file.read_text())["env"]
    assert env.pop("type") == "gem_so101"
    SO101EnvConfig(**env)


@pytest.mark.slow
def test_importing_the_configuration_imports_no_simulator():
    code = (
        "import sys, lerobot_gem.envs.configuration_so101; "
        "print(sorted({'mujoco', 'robosuite', 'lerobot_env_so101'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
