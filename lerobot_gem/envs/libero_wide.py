"""The gym environment behind `--env.type=libero_wide`."""

from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.envs.libero import LiberoEnv, _get_suite, _select_task_ids
from numpy.typing import NDArray

from lerobot_gem.envs.vector_envs import vector_envs
from lerobot_gem.simulation.naming import arrived, check_named, choose_object, instruction_naming
from lerobot_gem.simulation.placements import WIDE_RULES, apply_wide, require_wide, stream_rng
from lerobot_gem.simulation.rendering import flip
from lerobot_gem.simulation.scene import LiberoScene, definition_file
from lerobot_gem.simulation.scene_changes import LIBEROS_OWN, SceneChanges


class LiberoWideEnv(LiberoEnv):
    """LeRobot's LIBERO env on a `LiberoScene`: wide placements, soft resets, each image drawn once.

    Args:
        task_suite: The LIBERO suite object.
        task_id: Task in the suite.
        task_suite_name: The suite's name.
        multisampling: 4x antialiasing.
        blank_images: Observations hold black images.
        changes: What differs from LIBERO's scene.
        distractors: Number of objects that are added to it.
        named_object: Object that the instruction names in place of the task's own, "other" or "any"; empty for the task's own.
        **kwargs: Of LeRobot's `LiberoEnv`.
    """

    def __init__(
        self,
        task_suite: Any,
        task_id: int,
        task_suite_name: str,
        multisampling: bool = False,
        blank_images: bool = False,
        changes: SceneChanges = LIBEROS_OWN,
        distractors: int = 0,
        named_object: str = "",
        **kwargs: Any,
    ):
        super().__init__(task_suite, task_id, task_suite_name, init_states=False, **kwargs)
        self.suite_name = task_suite_name
        self.multisampling, self.blank_images = multisampling, blank_images
        self.changes, self.distractors = changes, distractors
        self.named_object = named_object
        # LIBERO's name of the object that the present instruction names; None for the task's own instruction.
        self.named: str | None = None
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
                distractors=self.distractors,
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
        """Draw the layout that belongs to `seed` (without one: to the next number of the last seed's generator)."""
        scene = self._scene_now()
        gym.Env.reset(self, seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        rng = stream_rng("evaluation", int(seed is None), number, self.task_id)
        apply_wide(scene, rng, self.changes)
        if self.named_object:
            self.named = choose_object(scene, self.named_object, rng.spawn(1)[0])
            self.task_description = instruction_naming(scene, self.named)
        for robot in scene.env.robots:
            robot.controller.use_delta = self.control_mode == "relative"
        return self._format_raw_obs(scene.env._get_observations()), {"is_success": False}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """LeRobot's, but for what success is when the instruction names another object."""
        observation, reward, terminated, truncated, info = super().step(action)
        if self.named is not None:
            own, named = info["is_success"], arrived(self._scene_now(), self.named)
            info["is_success"] = named
            reward, terminated = (1.0 if named else -1.0 if own else 0.0), own or named
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        if self._scene is not None:
            self._scene.close()
            self._scene = self._env = None


def create_libero_wide_envs(
    suites: list[str], task_ids: list[int] | None, named_object: str, **kwargs: Any
) -> dict[str, dict[int, Any]]:
    """Vector environments {suite: {task_id: vector env}}.

    Args:
        suites: LIBERO suites.
        task_ids: As in `vector_envs`.
        named_object: As in `LiberoWideEnv`.
        **kwargs: Of `vector_envs`.

    Raises:
        ValueError: No suite, an unknown one, or one without wide placements; an unknown task; or a task whose scene lacks
            `named_object`.
    """
    if not suites:
        raise ValueError(
            f"env.task names no LIBERO suite; there are wide placements for {', '.join(WIDE_RULES)}."
        )
    opened = {}
    for name in suites:
        opened[name] = _get_suite(name)
        require_wide(name)
    # An environment notices at its first reset, when the tasks before it have been evaluated, for nothing.
    definitions = {
        f"{name} task {number}": definition_file(suite.get_task(number))
        for name, suite in opened.items()
        for number in _select_task_ids(len(suite.tasks), task_ids)
    }
    check_named(named_object, definitions)
    return vector_envs(LiberoWideEnv, opened, task_ids, named_object=named_object, **kwargs)
