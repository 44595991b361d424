"""The sub-tasks of a scripted policy's frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.naming import display_name
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace
from lerobot_gem.simulation.subtasks import STEPS, current_step, describe, steady

# Steps of a demonstration that last less than this belong to the one before, seconds.
_SHORTEST_STEP = 0.15


@dataclass(frozen=True)
class Plan:
    """The sub-tasks of an attempt.

    Attributes:
        subtasks: In their order.
        steps: Of each frame, the place of its sub-task in `subtasks`.
    """

    subtasks: tuple[str, ...]
    steps: Sequence[int]


class Planner(Protocol):
    """Sees the frames of an attempt in order, and says what their sub-tasks are.

    Attributes:
        named: Numbers of the movable objects that the task names.
    """

    named: tuple[int, ...]

    def see(self, action: NDArray[np.floating]) -> int | None:
        """Take note of the present state and of what is done in it (7,); returns the step if that is known already."""
        ...

    def plan(self, fps: int | None) -> Plan:
        """What was seen; `fps` is None for unrelated frames."""
        ...


class ScriptedSteps:
    """A `Planner` of pick-and-place tasks that have a scripted policy: `subtasks.STEPS`, from state and action.

    Args:
        scene: The scene.
        policy: The scripted policy of its task.
    """

    def __init__(self, scene: LiberoScene, policy: ScriptedPickAndPlace):
        self._policy = policy
        self._seen: list[int] = []
        names = display_name(policy.target), display_name(policy.container)
        self._subtasks = tuple(describe(step, *names, scene.goal[0][0]) for step in range(len(STEPS)))
        self.named = tuple(scene.objects.index(name) for name in (policy.target, policy.container))

    def see(self, action: NDArray[np.floating]) -> int:
        """See `Planner`."""
        self._seen.append(current_step(self._policy, action))
        return self._seen[-1]

    def plan(self, fps: int | None) -> Plan:
        """See `Planner`. In a demonstration a short step belongs to the one before."""
        steps = self._seen if fps is None else steady(self._seen, round(_SHORTEST_STEP * fps))
        return Plan(self._subtasks, steps)
