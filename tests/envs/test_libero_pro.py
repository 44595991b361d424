"""LIBERO-PRO's tasks in LeRobot's environment: their states, objects and instructions."""

from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.envs.configuration_libero_pro import LiberoProEnvConfig

pytestmark = [pytest.mark.libero, pytest.mark.slow]
SIZE = 64


@pytest.fixture(scope="module")
def pro(libero: Path) -> Path:
    from lerobot_gem.simulation.libero_pro_files import pro_folder, setup_pro

    setup_pro()
    return pro_folder()


@pytest.mark.parametrize(
    ("suite", "instruction"),
    [
        # Names of files: pick up the ... and place it in the basket.
        ("libero_object_swap", "Pick the alphabet soup and place it in the basket"),
        ("libero_object_lan", "grab alphabet soup and put it into basket"),
        ("libero_object_temp_x0.3", "Pick the alphabet soup and place it in the basket"),
        # Objects that hf-libero has no classes for.
        ("libero_object_object", "Pick the alphabet soup and place it in the basket"),
        ("libero_object_with_mug", "pick the alphabet soup and place it in the basket"),
    ],
)
def test_state_of_an_episode_is_the_packages_own(pro: Path, suite: str, instruction: str) -> None:
    config = LiberoProEnvConfig(
        task=suite, task_ids=[0], hard_reset=False, observation_height=SIZE, observation_width=SIZE
    )
    vector = config.create_envs(n_envs=1)[suite][0]
    try:
        env = vector.envs[0].unwrapped
        env.num_steps_wait = 0
        states = np.load(next((pro / "init_files" / suite).glob("*alphabet_soup*")))["states"]
        for number in range(2):
            observation, _ = vector.reset(seed=[number])
            sim = env._env.env.sim
            np.testing.assert_allclose(sim.get_state().flatten()[1:], states[number][1:], atol=1e-6)
            for name, thing in env._env.env.objects_dict.items():
                address = sim.model.get_joint_qpos_addr(thing.joints[-1])[0]
                position = sim.data.body_xpos[env._env.env.obj_body_id[name]]
                np.testing.assert_allclose(position, states[number][1 + address : 4 + address], atol=1e-6)
        assert vector.call("task_description")[0] == instruction
        assert vector.call("_max_episode_steps")[0] == 280
        observation, _, terminated, _, info = vector.step(np.zeros((1, 7), np.float32))
        assert vector.observation_space.contains(observation)
        assert not terminated[0] and not info["is_success"][0]
    finally:
        vector.close()


def test_unknown_suites_name_the_known_ones(pro: Path) -> None:
    with pytest.raises(ValueError, match="no suite 'libero_object'. It has: .*libero_object_swap"):
        LiberoProEnvConfig(task="libero_object").create_envs(1)
    with pytest.raises(ValueError, match="env.task names no suite"):
        LiberoProEnvConfig(task=" ").create_envs(1)
    with pytest.raises(ValueError, match="lack red_box"):
        LiberoProEnvConfig(task="libero_object_with_red_box").create_envs(1)
