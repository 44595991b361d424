"""The scene against LeRobot's environment."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot_gem.simulation.placements import apply_benchmark
from lerobot_gem.simulation.rendering import flip
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene

pytestmark = pytest.mark.libero


def test_observation_is_what_a_policy_sees_in_lerobots_env(scene: LiberoScene, libero: Path) -> None:
    from lerobot.envs.libero import LiberoEnv, _get_suite
    from lerobot.envs.utils import preprocess_observation
    from lerobot.processor.env_processor import LiberoProcessorStep

    env = LiberoEnv(
        _get_suite("libero_object"),
        0,
        "libero_object",
        obs_type="pixels_agent_pos",
        observation_width=128,
        observation_height=128,
        hard_reset=False,
        control_freq=5,
        num_steps_wait=2,
    )
    try:
        raw, _ = env.reset(seed=0)
        state = env._env.get_sim_state()
    finally:
        env.close()
    batched = preprocess_observation(
        {
            "pixels": {key: value[None] for key, value in raw["pixels"].items()},
            "robot_state": {
                part: {k: np.asarray(v)[None] for k, v in values.items()}
                for part, values in raw["robot_state"].items()
            },
        }
    )
    theirs = LiberoProcessorStep().observation(batched)
    scene.reset()
    scene.set_state(state)
    ours = scene.observation()
    torch.testing.assert_close(
        torch.from_numpy(ours["observation.state"]), theirs["observation.state"][0], atol=2e-3, rtol=0
    )
    for name in CAMERAS:
        key = f"observation.images.{name}"
        image = theirs[key][0].permute(1, 2, 0).numpy() * 255
        difference = np.abs(ours[key] - image).mean()
        assert difference < 4  # antialiasing
        for wrong in (ours[key][::-1], ours[key][:, ::-1], flip(ours[key])):
            assert np.abs(wrong - image).mean() > 3 * difference


def test_state_is_restored_exactly(scene: LiberoScene) -> None:
    apply_benchmark(scene, 1)
    first = scene.observation(depth=True)
    scene.step(np.array([1.0, 0, -1, 0, 0, 0, 1]))
    apply_benchmark(scene, 1)
    second = scene.observation(depth=True)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_unknown_task_and_suite(libero: Path) -> None:
    with pytest.raises(ValueError, match="libero_object has tasks 0 to 9, but task_id is 10"):
        LiberoScene("libero_object", 10)
    with pytest.raises(ValueError, match="Unknown LIBERO suite 'libero_objects'"):
        LiberoScene("libero_objects", 0)
    with pytest.raises(ValueError, match="control_freq=0: expected control steps per second, more than 0"):
        LiberoScene("libero_object", 0, control_freq=0)
