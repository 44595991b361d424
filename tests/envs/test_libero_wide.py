"""`--env.type=libero_wide` next to LeRobot's `libero`."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import draccus
import numpy as np
import pytest
from lerobot.envs.configs import EnvConfig, LiberoEnv as LiberoEnvConfig

from lerobot_gem.envs.configuration_libero_wide import LiberoWideEnvConfig

_ARGUMENTS = ["--env.type=libero_wide", "--env.task_ids=[1]", "--env.fps=5", "--env.episode_length=3"]
_ARGUMENTS += ["--env.observation_height=64", "--env.observation_width=64"]


@dataclass
class _Arguments:
    env: EnvConfig


def _parse(*more: str) -> EnvConfig:
    return draccus.parse(_Arguments, args=[*_ARGUMENTS, *more]).env


def test_parses_from_the_command_line() -> None:
    config = _parse("--env.blank_images=true")
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


@pytest.mark.libero
def test_wrong_names_are_errors(libero: Path) -> None:
    with pytest.raises(ValueError, match="no wide placements for libero_goal"):
        LiberoWideEnvConfig(task="libero_goal").create_envs(1)
    with pytest.raises(ValueError, match="control_mode is relative or absolute"):
        LiberoWideEnvConfig(control_mode="both").create_envs(1)


@pytest.fixture(scope="module")
def env(libero: Path) -> Iterator:
    env = _parse().create_envs(n_envs=1)["libero_object"][1]
    yield env
    env.close()


@pytest.mark.libero
def test_placement_depends_on_the_seed_alone(env) -> None:
    first, _ = env.reset(seed=[3])
    env.step(np.ones((1, 7), np.float32))
    other, _ = env.reset(seed=[4])
    again, _ = env.reset(seed=[3])
    for camera in ("image", "image2"):
        np.testing.assert_array_equal(first["pixels"][camera], again["pixels"][camera])
    assert np.abs(first["pixels"]["image"].astype(int) - other["pixels"]["image"]).mean() > 1
    np.testing.assert_array_equal(first["robot_state"]["eef"]["pos"], again["robot_state"]["eef"]["pos"])


@pytest.mark.libero
def test_steps_renders_and_reports(env) -> None:
    observation, _ = env.reset(seed=[0])
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = env.step(np.zeros((1, 7), np.float32))
    assert env.observation_space.contains(observation)
    assert not terminated[0] and not truncated[0] and reward[0] == 0 and not info["is_success"][0]
    assert env.call("task_description")[0] == "pick up the cream cheese and place it in the basket"
    assert env.call("_max_episode_steps")[0] == 3
    assert env.metadata["render_fps"] == 5
    image = env.call("render")[0]
    np.testing.assert_array_equal(image[::-1, ::-1], observation["pixels"]["image"][0])


@pytest.mark.libero
def test_blank_images_blind_the_policy_but_not_the_video(env) -> None:
    inner = env.envs[0].unwrapped
    inner.blank_images = True
    try:
        observation, _ = env.reset(seed=[0])
        assert not any(image.any() for image in observation["pixels"].values())
        assert observation["robot_state"]["eef"]["pos"].any()
        assert env.call("render")[0].any()
    finally:
        inner.blank_images = False
