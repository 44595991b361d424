"""The steps of a task, as the scripted policy takes them."""

import itertools

import numpy as np
import pytest

from lerobot_gem.simulation.placements import apply_wide, stream_rng
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import make_scripted_policy
from lerobot_gem.simulation.subtasks import STEPS, current_step, describe, steady


def test_steps_in_words() -> None:
    texts = [describe(step, "milk", "basket", "in") for step in range(len(STEPS))]
    assert texts[0] == "Move the gripper above the milk."
    assert texts[-1] == "Let go of the milk in the basket."
    assert len(set(texts)) == len(STEPS) and all("milk" in text for text in texts)


def test_a_short_step_belongs_to_the_one_before() -> None:
    assert steady([0, 0, 1, 0, 0, 2, 2, 2], 2) == [0, 0, 0, 0, 0, 2, 2, 2]
    assert steady([1, 0, 0], 2) == [1, 0, 0]
    assert steady([0, 1, 2], 1) == [0, 1, 2]
    assert steady([], 3) == []


@pytest.mark.libero
def test_a_demonstration_goes_through_the_steps_in_order(scene: LiberoScene) -> None:
    apply_wide(scene, stream_rng("evaluation", 1))
    policy = make_scripted_policy(scene)
    steps, fingers, heights = [], [], []
    for _ in range(80):
        action = policy.action()
        steps.append(current_step(policy, action))
        fingers.append(np.ptp(scene.fingers))
        heights.append(scene.position(policy.target)[2])
        if scene.step(action):
            break
    assert scene.success
    assert [step for step, _ in itertools.groupby(steps)] == sorted(set(steps))
    assert {STEPS.index(name) for name in ("reach", "descend", "grasp", "carry", "release")} <= set(steps)
    # Re-derived: open until the object is gripped, raised while it is carried.
    fingers, heights, steps = np.array(fingers), np.array(heights), np.array(steps)
    assert fingers[steps == STEPS.index("reach")].min() > 0.06
    assert heights[steps == STEPS.index("carry")].min() > heights[0] + 0.03
    assert heights[steps < STEPS.index("lift")].max() < heights[0] + 0.01
