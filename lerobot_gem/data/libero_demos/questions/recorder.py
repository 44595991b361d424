"""Collects, while an attempt is simulated, what can be asked about its frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.kinds import Question, candidates
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.questions.scene_facts import Observer, SceneFacts
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace
from lerobot_gem.simulation.subtasks import current_step, steady

# Steps of a demonstration that last less than this belong to the one before, seconds.
_SHORTEST_STEP = 0.15


@dataclass(frozen=True)
class FrameLanguage:
    """What can be said about a frame.

    Attributes:
        subtask: What the scripted policy is doing.
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
        policy: The scripted policy of its task.
        rng: Chooses what is asked and in which words.
    """

    def __init__(
        self,
        config: QuestionsConfig,
        scene: LiberoScene,
        policy: ScriptedPickAndPlace,
        rng: np.random.Generator,
    ):
        self.config, self.rng = config, rng
        self.observer = Observer(scene, policy)
        self._frames: list[tuple[int, SceneFacts | None]] = []

    def see(self, action: NDArray[np.floating], ask: bool) -> None:
        """Take note of the present state.

        Args:
            action: (7,) the scripted policy's.
            ask: Whether this frame gets questions, which costs a segmentation for each camera.
        """
        step = current_step(self.observer.policy, action)
        self._frames.append((step, self.observer.facts(step) if ask else None))

    def demonstration(self, fps: int) -> list[FrameLanguage]:
        """The frames seen so far, as a demonstration at `fps`."""
        return self._languages(steady([step for step, _ in self._frames], round(_SHORTEST_STEP * fps)))

    def unrelated(self) -> list[FrameLanguage]:
        """The frames seen so far, each for itself."""
        return self._languages([step for step, _ in self._frames])

    def _languages(self, steps: Sequence[int]) -> list[FrameLanguage]:
        result = []
        for step, (_, facts) in zip(steps, self._frames, strict=True):
            questions: list[Question] = []
            if facts is not None:
                facts = replace(facts, step=step)
                for view in facts.views:
                    questions += candidates(facts, view, self.config.asked(), self.rng)
            result.append(FrameLanguage(self.observer.subtasks[step], questions))
        return result
