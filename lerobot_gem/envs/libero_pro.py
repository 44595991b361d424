"""The gym environment behind `--env.type=libero_pro`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.envs.libero import TASK_SUITE_MAX_STEPS, LiberoEnv, _get_suite
from libero.libero.benchmark import Task

from lerobot_gem.envs.vector_envs import vector_envs
from lerobot_gem.simulation.libero_pro_files import base_suite, pro_suites, pro_tasks
from lerobot_gem.simulation.libero_pro_objects import register_objects


@dataclass(frozen=True)
class ProSuite:
    """A suite of LIBERO-PRO, as LeRobot's `LiberoEnv` reads suites."""

    tasks: list[Task]

    def get_task(self, task_id: int) -> Task:
        """A task; its files are absolute paths."""
        return self.tasks[task_id]


def open_suite(name: str) -> ProSuite:
    """A suite of LIBERO-PRO.

    Raises:
        FileNotFoundError: LIBERO-PRO's files are not there yet.
        ValueError: There is no such suite, or the assets lack one of its objects.
    """
    base = base_suite(name)
    base_tasks = [task.name for task in _get_suite(base).tasks] if base else []
    tasks = pro_tasks(name, base_tasks)
    register_objects(task.bddl_file for task in tasks)
    return ProSuite(
        [
            Task(task.name, task.instruction, "Libero", name, str(task.bddl_file), str(task.states_file))
            for task in tasks
        ]
    )


class LiberoProEnv(LiberoEnv):
    """LeRobot's LIBERO env on a task of LIBERO-PRO.

    Args:
        task_suite: The suite.
        task_id: Task in the suite.
        task_suite_name: The suite's name.
        episode_length: Steps of an episode; those of the suite that is varied when None.
        **kwargs: Of LeRobot's `LiberoEnv`.
    """

    def __init__(
        self,
        task_suite: ProSuite,
        task_id: int,
        task_suite_name: str,
        episode_length: int | None = None,
        hard_reset: bool = True,
        **kwargs: Any,
    ):
        steps = episode_length or TASK_SUITE_MAX_STEPS[str(base_suite(task_suite_name))]
        super().__init__(
            task_suite, task_id, task_suite_name, episode_length=steps, init_states=False, **kwargs
        )
        with np.load(task_suite.get_task(task_id).init_states_file, allow_pickle=False) as states:
            self._init_states = states["states"]
        self.init_states, self.hard_reset = True, hard_reset
        # Videos then play in real time.
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": self.control_freq}

    def _ensure_env(self) -> None:
        # A process of its own knows LIBERO's objects alone.
        register_objects([Path(self._task_bddl_file)])
        super()._ensure_env()


def create_libero_pro_envs(suites: list[str], **kwargs: Any) -> dict[str, dict[int, Any]]:
    """Vector environments {suite: {task_id: vector env}}.

    Args:
        suites: Suites of LIBERO-PRO.
        **kwargs: Of `vector_envs`.

    Raises:
        FileNotFoundError: LIBERO-PRO's files are not there yet.
        ValueError: No suite, or an unknown one.
    """
    if not suites:
        raise ValueError(f"env.task names no suite; LIBERO-PRO has {', '.join(pro_suites())}.")
    return vector_envs(LiberoProEnv, {name: open_suite(name) for name in suites}, **kwargs)
