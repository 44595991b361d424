"""`--env.type=libero_wide` next to LeRobot's `libero`, as configurations."""

from dataclasses import dataclass

import draccus
import pytest
from lerobot.envs.configs import EnvConfig, LiberoEnv as LiberoEnvConfig

from lerobot_gem.envs.configuration_libero_wide import LiberoWideEnvConfig
from lerobot_gem.validation import ConfigurationError

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


def test_libero_plus_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is_libero_plus"):
        LiberoWideEnvConfig(is_libero_plus=True)


@pytest.mark.parametrize(
    ("name", "why"), [("init_states", "layouts are drawn by the seed"), ("hard_reset", "always soft")]
)
def test_lerobots_options_without_effect_are_refused(name: str, why: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"env\.{name}=false has no effect in libero_wide, where .*{why}"
    ):
        LiberoWideEnvConfig(**{name: False})
    assert LiberoWideEnvConfig(**{name: True}) == LiberoWideEnvConfig()


def test_changes_are_numbers_or_ranges() -> None:
    config = parse("--env.camera_turn=10", "--env.table_height=[0,0.06]", "--env.distractors=2")
    assert isinstance(config, LiberoWideEnvConfig)
    assert (config.camera_turn, config.table_height, config.distractors) == (10.0, [0.0, 0.06], 2)
    with pytest.raises(ConfigurationError, match=r"camera_turn=\[1.0, 2.0, 3.0\]: expected one number"):
        LiberoWideEnvConfig(camera_turn=[1.0, 2.0, 3.0])
