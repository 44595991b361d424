"""The steps of a pick-and-place task, and which of them the scripted policy is at.

The scripted policy has no phases: a step is what its action and the state of the simulator amount to.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace

STEPS = ("reach", "descend", "grasp", "lift", "carry", "release")
# An object that is held, hardly raised and not over its goal is still being lifted, metres.
_RAISED, _AT_GOAL = 0.04, 0.10


def current_step(policy: ScriptedPickAndPlace, action: NDArray[np.floating]) -> int:
    """Which of `STEPS` the scripted policy is at.

    Args:
        policy: The scripted policy, in the present state of its scene.
        action: (7,) what it does there.
    """
    opens = action[-1] < 0
    if policy.held():
        if opens:
            return STEPS.index("release")
        offset = policy.scene.position(policy.target) - policy.scene.position(policy.container)
        raised = policy.scene.position(policy.target)[2] - policy.rest[2] - policy.scene.ground
        lifted = raised > _RAISED or np.hypot(*offset[:2]) < _AT_GOAL
        return STEPS.index("carry" if lifted else "lift")
    if policy.delivered():
        return STEPS.index("release")
    if not opens:
        return STEPS.index("grasp")
    offset = policy.grasp_point() - policy.scene.eef_position
    return STEPS.index("descend" if np.hypot(*offset[:2]) < policy.aligned else "reach")


def steady(steps: Sequence[int], least: int) -> list[int]:
    """The same steps without those that last fewer than `least` frames, which become part of the one before.

    A touch that is lost for a frame is no reason to begin again.
    """
    result: list[int] = []
    for step, run in groupby(steps):
        length = len(list(run))
        result += [result[-1] if result and length < least else step] * length
    return result


def describe(step: int, target: str, container: str, preposition: str) -> str:
    """What to do in a step, e.g. "Carry the milk to the basket.".

    Args:
        step: Of `STEPS`.
        target: What is picked up.
        container: Where it goes.
        preposition: "in" or "on".
    """
    texts = {
        "reach": f"Move the gripper above the {target}.",
        "descend": f"Lower the gripper around the {target}.",
        "grasp": f"Close the gripper on the {target}.",
        "lift": f"Lift the {target}.",
        "carry": f"Carry the {target} to the {container}.",
        "release": f"Let go of the {target} {preposition} the {container}.",
    }
    return texts[STEPS[step]]
