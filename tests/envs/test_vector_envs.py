"""Vector environments of suites and tasks."""

from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import pytest


class _Env(gym.Env):
    observation_space = gym.spaces.Box(0, 1)
    action_space = gym.spaces.Box(0, 1)

    def __init__(self, suite, task_id, name, episode_index, n_envs, **kwargs):
        self.made_of = (task_id, name, episode_index, n_envs, kwargs)


@pytest.mark.libero
def test_every_task_gets_its_environments(libero: Path) -> None:
    from lerobot_gem.envs.vector_envs import vector_envs

    suites = {"a": SimpleNamespace(tasks=[0, 1, 2]), "b": SimpleNamespace(tasks=[0])}
    made = vector_envs(_Env, suites, None, 2, False, control_mode="absolute")
    assert {name: list(tasks) for name, tasks in made.items()} == {"a": [0, 1, 2], "b": [0]}
    env = made["a"][2].envs[1].unwrapped
    assert env.made_of == (2, "a", 1, 2, {"control_mode": "absolute"})
    assert list(vector_envs(_Env, suites, [0], 1, False)["a"]) == [0]
    with pytest.raises(ValueError, match="task_id 3 out of range"):
        vector_envs(_Env, suites, [3], 1, False)
