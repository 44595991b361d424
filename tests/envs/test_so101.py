"""The environment behind `--env.type=gem_so101`."""

import numpy as np
import pytest

from lerobot_gem.envs.configuration_so101 import SO101EnvConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def env():
    config = SO101EnvConfig(fps=5, episode_length=3, observation_height=64, observation_width=64)
    [vector] = config.create_envs(1)["gem_so101"].values()
    yield vector
    vector.close()


def test_it_is_what_lerobot_eval_asks_for(env):
    from lerobot.envs.utils import preprocess_observation

    first, _ = env.reset(seed=[7])
    again, _ = env.reset(seed=[7])
    other, _ = env.reset(seed=[8])
    assert np.array_equal(first["pixels"]["front"], again["pixels"]["front"])
    assert not np.array_equal(first["pixels"]["front"], other["pixels"]["front"])
    observation = preprocess_observation(other)
    assert observation["observation.images.side"].shape == (1, 3, 64, 64)
    assert observation["observation.state"].shape == (1, 6)
    assert env.observation_space.contains(other)
    assert list(env.call("task_description")) == ["put the purple cube on the green disc"]
    assert list(env.call("_max_episode_steps")) == [3]


def test_an_episode_that_is_not_solved_is_cut_off(env):
    env.reset(seed=[7])
    for step in range(3):
        _, reward, terminated, truncated, info = env.step(np.zeros((1, 4), np.float32))
        assert not terminated[0]
        assert truncated[0] == (step == 2)
    assert not np.any(info.get("is_success", False))
    assert reward[0] == 0


def test_the_expert_succeeds_in_it():
    from lerobot_gem.envs.so101 import SO101Env

    env = SO101Env(fps=5, episode_length=60, observation_height=16, observation_width=16)
    env.reset(seed=3)
    for _ in range(60):
        _, reward, terminated, _, info = env.step(env._scene.expert_action())
        if terminated:
            break
    env.close()
    assert terminated
    assert reward == 1
    assert info["is_success"]
