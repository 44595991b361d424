"""The gym environment behind `--env.type=gem_so101`."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lerobot_gem.simulation.placements import stream_rng
from lerobot_gem.simulation.so101_scene import ACTION_NAMES, CAMERAS, MOTORS, TASK, SO101Scene


class SO101Env(gym.Env):
    """The SO-101 scene as `lerobot-eval` wants it.

    Args:
        fps: Control steps per second.
        episode_length: Steps of an episode.
        observation_height: Of the pictures in pixels.
        observation_width: Of the pictures in pixels.
        quick: As in `SO101Scene`.
    """

    def __init__(
        self,
        fps: int,
        episode_length: int,
        observation_height: int,
        observation_width: int,
        quick: bool = True,
    ):
        self._scene = SO101Scene(fps, observation_height, observation_width, quick)
        self._steps = 0
        self._picture: NDArray[np.uint8] | None = None
        self._max_episode_steps = episode_length
        self.task, self.task_description = "pick_place", TASK
        # Videos then play in real time.
        self.metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": fps}
        size = observation_height, observation_width
        pictures: dict[str, spaces.Space] = {
            name: spaces.Box(0, 255, (*size, 3), np.uint8) for name in CAMERAS
        }
        state = spaces.Box(-np.inf, np.inf, (len(MOTORS),), np.float32)
        self.observation_space = spaces.Dict({"pixels": spaces.Dict(pictures), "agent_pos": state})
        self.action_space = spaces.Box(-1, 1, (len(ACTION_NAMES),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw the layout that belongs to `seed` (without one: to the next number of the last seed's generator)."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        self._scene.reset(stream_rng("evaluation", int(seed is None), number))
        self._steps = 0
        return self._observation(), {"is_success": False}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Execute an action; the episode ends when the cube lies on the disc, or out of reach."""
        solved, is_over = self._scene.step(action)
        self._steps += 1
        truncated = not is_over and self._steps >= self._max_episode_steps
        return self._observation(), float(solved), is_over, truncated, {"is_success": solved}

    def render(self) -> NDArray[np.uint8]:
        """(H, W, 3) what the first camera saw last."""
        return self._scene.draw(CAMERAS[0], depth=False)[0] if self._picture is None else self._picture

    def close(self) -> None:
        self._scene.close()

    def _observation(self) -> dict[str, Any]:
        pictures = {name: self._scene.draw(name, depth=False)[0] for name in CAMERAS}
        self._picture = pictures[CAMERAS[0]]
        return {"pixels": pictures, "agent_pos": self._scene.state()}
