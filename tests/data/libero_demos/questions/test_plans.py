"""The sub-tasks of a scripted policy's frames; `test_recorder.py` has what becomes of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions import plans
from lerobot_gem.data.libero_demos.questions.plans import ScriptedSteps


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ScriptedSteps:
    """Of a task whose action's first number is the step."""
    monkeypatch.setattr(plans, "current_step", lambda policy, action: int(action[0]))
    policy = SimpleNamespace(target="milk_1", container="basket_1")
    scene = SimpleNamespace(objects=["butter_1", "basket_1", "milk_1"], goal=[["in", "milk_1", "region"]])
    return ScriptedSteps(scene, policy)  # type: ignore[arg-type]


def test_steps_of_a_demonstration_and_of_unrelated_frames(steps: ScriptedSteps) -> None:
    assert steps.named == (2, 1)
    assert [steps.see(np.full(7, step)) for step in (0, 0, 0, 1, 0, 5)] == [0, 0, 0, 1, 0, 5]
    unrelated = steps.plan(None)
    assert unrelated.steps == [0, 0, 0, 1, 0, 5]
    assert unrelated.subtasks[0] == "Move the gripper above the milk."
    assert unrelated.subtasks[5] == "Let go of the milk in the basket."
    assert steps.plan(20).steps == [0] * 6  # 0.15 s are three frames
