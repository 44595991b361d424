"""`--env.type=libero_wide` next to LeRobot's `libero`, as configurations."""

import subprocess
import sys
from dataclasses import dataclass

import draccus
import pytest
from lerobot.envs.configs import EnvConfig, LiberoEnv as LiberoEnvConfig

from lerobot_gem.envs.configuration_libero_wide import LiberoWideEnvConfig

_ARGUMENTS = ["--env.type=libero_wide", "--env.task_ids=[1]", "--env.fps=5", "--env.episode_length=3"]
_ARGUMENTS += ["--env.observation_height=64", "--env.observation_width=64"]


@dataclass
class _Arguments:
    env: EnvConfig


def parse(*more: str) -> EnvConfig:
    return draccus.parse(_Arguments, args=[*_ARGUMENTS, *more]).env


def test_parses_from_the_command_line() -> None:
    config = parse("--env.blank_images=true")
    assert isinstance(config, LiberoWideEnvConfig)
    assert config.blank_images and not config.multisampling and config.fps == 5
    assert config.type == "libero_wide"


def test_offers_what_lerobots_env_offers() -> None:
    ours, theirs = LiberoWideEnvConfig(), LiberoEnvConfig()
    assert ours.features == theirs.features
    assert ours.features_map == theirs.features_map
    assert [type(step) for step in ours.get_env_processors()[0].steps] == [
        type(step) for step in theirs.get_env_processors()[0].steps
    ]


@pytest.mark.slow
def test_importing_the_configuration_imports_no_simulator() -> None:
    code = (
        "import sys, lerobot_gem.envs.configuration_libero_wide; "
        "print(sorted({'mujoco', 'robosuite', 'libero', 'lerobot.envs.libero'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_libero_plus_is_refused() -> None:
    with pytest.raises(ValueError, match="is_libero_plus"):
        LiberoWideEnvConfig(is_libero_plus=True)


def test_changes_are_numbers_or_ranges() -> None:
    config = parse("--env.camera_turn=10", "--env.table_height=[0,0.06]", "--env.distractors=2")
    assert isinstance(config, LiberoWideEnvConfig)
    assert (config.camera_turn, config.table_height, config.distractors) == (10.0, [0.0, 0.06], 2)
    with pytest.raises(ValueError, match=r"camera_turn=\[1.0, 2.0, 3.0\]: expected one number"):
        LiberoWideEnvConfig(camera_turn=[1.0, 2.0, 3.0])
