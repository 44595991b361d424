"""Collects, while an attempt is simulated, what can be asked about its frames."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.hindsight import Hindsight
from lerobot_gem.data.libero_demos.questions.kinds import Question, candidates
from lerobot_gem.data.libero_demos.questions.plans import Plan, Planner, ScriptedSteps
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.questions.scene_facts import Observer, SceneFacts
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace


@dataclass(frozen=True)
class FrameLanguage:
    """What can be said about a frame.

    Attributes:
        subtask: What is being done.
        questions: Candidates; a few of them are chosen when the dataset is written.
    """

    subtask: str
    questions: list[Question]

    def to_json(self) -> dict[str, Any]:
        return {"subtask": self.subtask, "questions": [vars(question) for question in self.questions]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FrameLanguage":
        return cls(values["subtask"], [Question(**question) for question in values["questions"]])


class QuestionRecorder:
    """Sees the frames of one attempt, in order.

    Args:
        config: Which questions.
        scene: The scene.
        policy: The scripted policy of its task. None where there is none: a demonstration's sub-tasks are then told in
            hindsight, and nothing is asked about grasps.
        rng: Chooses what is asked and in which words.
    """

    def __init__(
        self,
        config: QuestionsConfig,
        scene: LiberoScene,
        policy: ScriptedPickAndPlace | None,
        rng: np.random.Generator,
    ):
        self.config, self.rng = config, rng
        self.observer = Observer(scene, policy)
        self._planner: Planner = Hindsight(scene) if policy is None else ScriptedSteps(scene, policy)
        self._facts: list[SceneFacts | None] = []

    def see(self, action: NDArray[np.floating], ask: bool) -> None:
        """Take note of the present state.

        Args:
            action: (7,) what is done in it.
            ask: Whether this frame gets questions, which costs a segmentation for each camera.
        """
        step = self._planner.see(action)
        self._facts.append(self.observer.facts(self._planner.named, step) if ask else None)

    def demonstration(self, fps: int) -> list[FrameLanguage]:
        """The frames seen so far, as a demonstration at `fps`."""
        return self._languages(self._planner.plan(fps))

    def unrelated(self) -> list[FrameLanguage]:
        """The frames seen so far, each for itself."""
        return self._languages(self._planner.plan(None))

    def _languages(self, plan: Plan) -> list[FrameLanguage]:
        result = []
        for step, facts in zip(plan.steps, self._facts, strict=True):
            questions: list[Question] = []
            if facts is not None:
                facts = replace(facts, subtasks=plan.subtasks, step=step)
                for view in facts.views:
                    questions += candidates(facts, view, self.config.asked(), self.rng)
            result.append(FrameLanguage(plan.subtasks[step], questions))
        return result
