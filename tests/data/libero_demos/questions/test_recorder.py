"""What is noted of each frame, and what is made of it when the attempt is over."""

import json

import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions import recorder as module
from lerobot_gem.data.libero_demos.questions.kinds import Question
from lerobot_gem.data.libero_demos.questions.plans import ScriptedSteps
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.questions.recorder import FrameLanguage, QuestionRecorder
from lerobot_gem.data.libero_demos.questions.scene_facts import OTHER, SceneFacts, Thing, View
from lerobot_gem.simulation.cameras import Camera
from lerobot_gem.simulation.subtasks import STEPS, describe

SUBTASKS = tuple(describe(step, "milk", "basket", "in") for step in range(len(STEPS)))


class _Observer:
    """A scene in which both things of the task are always seen."""

    def __init__(self, *_: object):
        pass

    def facts(self, named: tuple[int, ...], step: int | None) -> SceneFacts:
        camera = Camera(np.zeros(3), np.eye(3), 1.0, 8, 8)
        view = View("observation.images.image", camera, np.full((8, 8), OTHER, np.int16), (0, 1), True, True)
        things = (Thing("milk", np.zeros(3)), Thing("basket", np.ones(3)))
        return SceneFacts(things, (view,), np.zeros(3), "pick up the milk", named, 0)


class _Planner(ScriptedSteps):
    """The action's first number is the step."""

    def __init__(self, *_: object):
        self._seen, self._subtasks, self.named = [], SUBTASKS, (0, 1)

    def see(self, action: np.ndarray) -> int:
        self._seen.append(int(action[0]))
        return self._seen[-1]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> QuestionRecorder:
    """Asks for the current sub-task."""
    monkeypatch.setattr(module, "Observer", _Observer)
    monkeypatch.setattr(module, "ScriptedSteps", _Planner)
    config, something = QuestionsConfig(kinds=["subtask"]), object()
    return QuestionRecorder(config, something, something, np.random.default_rng(0))  # type: ignore[arg-type]


def _see(recorder: QuestionRecorder, steps: list[int], asked: list[bool]) -> None:
    for step, ask in zip(steps, asked, strict=True):
        recorder.see(np.full(7, step), ask)


def test_in_a_demonstration_a_short_step_belongs_to_the_one_before(recorder: QuestionRecorder) -> None:
    _see(recorder, [0, 0, 0, 1, 0, 0, 0, 2, 2, 2], [False] * 3 + [True] + [False] * 6)
    frames = recorder.demonstration(fps=20)  # 0.15 s are three frames
    assert [frame.subtask for frame in frames] == [SUBTASKS[0]] * 7 + [SUBTASKS[2]] * 3
    # A question is about the step that the demonstration says, not about the short one.
    assert [question.answer for frame in frames for question in frame.questions] == [SUBTASKS[0]]
    assert len(frames[3].questions) == 1


def test_each_unrelated_frame_stands_for_itself(recorder: QuestionRecorder) -> None:
    _see(recorder, [0, 1, 0], [True] * 3)
    frames = recorder.unrelated()
    assert [frame.subtask for frame in frames] == [SUBTASKS[step] for step in (0, 1, 0)]
    assert [question.answer for frame in frames for question in frame.questions] == [
        SUBTASKS[step] for step in (0, 1, 0)
    ]


def test_language_survives_json() -> None:
    question = Question("subtask", "observation.images.image", "What now?", "Lift it.")
    frame = FrameLanguage("Lift the milk.", [question])
    assert FrameLanguage.from_json(json.loads(json.dumps(frame.to_json()))) == frame
