"""The gym environment behind `--env.type=libero_wide`."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.envs.libero import LiberoEnv, _get_suite, _select_task_ids
from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end
from numpy.typing import NDArray

from lerobot_gem.simulation.placements import WIDE_RULES, apply_wide, require_wide, stream_rng
from lerobot_gem.simulation.rendering import flip
from lerobot_gem.simulation.scene import LiberoScene


class LiberoWideEnv(LiberoEnv):
    """LeRobot's LIBERO env on a `LiberoScene`: wide placements, soft resets, each image drawn once.

    Args:
        task_suite: The LIBERO suite object.
        task_id: Task in the suite.
        task_suite_name: The suite's name.
        multisampling: 4x antialiasing.
        blank_images: Observations hold black images.
        **kwargs: Of LeRobot's `LiberoEnv`.
    """

    def __init__(
        self,
        task_suite: Any,
        task_id: int,
        task_suite_name: str,
        multisampling: bool = False,
        blank_images: bool = False,
        **kwargs: Any,
    ):
        super().__init__(task_suite, task_id, task_suite_name, init_states=False, **kwargs)
        self.suite_name = task_suite_name
        self.multisampling, self.blank_images = multisampling, blank_images
        # Videos then play in real time.
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": self.control_freq}
        self._scene: LiberoScene | None = None
        self._last_image: NDArray[np.uint8] | None = None

    def _ensure_env(self) -> None:
        if self._scene is None:
            self._scene = LiberoScene(
                self.suite_name,
                self.task_id,
                self.control_freq,
                self.observation_height,
                self.observation_width,
                self.multisampling,
            )
            self._env = self._scene.control

    def _scene_now(self) -> LiberoScene:
        self._ensure_env()
        assert self._scene is not None
        return self._scene

    def _draw(self, camera: str) -> NDArray[np.uint8]:
        return self._scene_now().renderer.render(camera.removesuffix("_image")).rgb

    def _format_raw_obs(self, raw_obs: dict[str, Any]) -> dict[str, Any]:
        black = np.zeros((self.observation_height, self.observation_width, 3), np.uint8)
        images = {c: black.copy() if self.blank_images else self._draw(c) for c in self.camera_name}
        self._last_image = None if self.blank_images else images[self.camera_name[0]]
        return super()._format_raw_obs({**raw_obs, **images})

    def render(self) -> NDArray[np.uint8]:
        """(H, W, 3) the first camera's image, upright, also when the policy's are blank."""
        return flip(self._draw(self.camera_name[0]) if self._last_image is None else self._last_image)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw the placement that belongs to `seed` (without one: to the next number of the last seed's generator)."""
        scene = self._scene_now()
        gym.Env.reset(self, seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        apply_wide(scene, stream_rng("evaluation", int(seed is None), number, self.task_id))
        for robot in scene.env.robots:
            robot.controller.use_delta = self.control_mode == "relative"
        return self._format_raw_obs(scene.env._get_observations()), {"is_success": False}

    def close(self) -> None:
        if self._scene is not None:
            self._scene.close()
            self._scene = self._env = None


def create_libero_wide_envs(
    suites: list[str],
    task_ids: list[int] | None,
    n_envs: int,
    use_async_envs: bool,
    **env_kwargs: Any,
) -> dict[str, dict[int, Any]]:
    """Vector environments as LeRobot's `create_libero_envs` gives them: {suite: {task_id: vector env}}.

    Args:
        suites: LIBERO suites.
        task_ids: Tasks of each suite, all when None.
        n_envs: Environments for each task.
        use_async_envs: One process for each environment.
        **env_kwargs: Of `LiberoWideEnv`.

    Raises:
        ValueError: No suite, an unknown suite or task, one without wide placements, or an unknown control mode.
    """
    if not suites:
        raise ValueError(
            f"env.task names no LIBERO suite; there are wide placements for {', '.join(WIDE_RULES)}."
        )
    if env_kwargs.get("control_mode", "relative") not in ("relative", "absolute"):
        raise ValueError(f"env.control_mode is relative or absolute, but is {env_kwargs['control_mode']!r}.")
    result: dict[str, dict[int, Any]] = {}
    for suite_name in suites:
        suite = _get_suite(suite_name)
        require_wide(suite_name)
        result[suite_name] = {}
        for task_id in _select_task_ids(len(suite.tasks), task_ids):
            fns = [
                partial(
                    LiberoWideEnv, suite, task_id, suite_name, episode_index=i, n_envs=n_envs, **env_kwargs
                )
                for i in range(n_envs)
            ]
            result[suite_name][task_id] = (
                _LazyAsyncVectorEnv(fns)
                if use_async_envs
                else gym.vector.SyncVectorEnv(
                    [freeze_after_episode_end(fn) for fn in fns],
                    autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP,
                )
            )
    return result
