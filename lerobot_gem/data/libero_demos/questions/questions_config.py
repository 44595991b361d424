"""Which questions a collection asks."""

from dataclasses import dataclass

from lerobot_gem.data.libero_demos.questions.kinds import KINDS
from lerobot_gem.validation import require_at_least


@dataclass
class QuestionsConfig:
    """Questions about what a simulation shows; see docs/how_to/collect_questions.md.

    Attributes:
        kinds: Some of `KINDS`; all of them when None.
        questions_per_image: Largest number of questions about each image. LeRobot's own recipes read one; `gem` reads any number.
        interval: Seconds between the frames of a demonstration that get questions.
        scene_interval: Interval between the single scenes that get questions: 1 asks about each, 4 about every fourth.
    """

    kinds: list[str] | None = None
    questions_per_image: int = 1
    interval: float = 0.5
    scene_interval: int = 1

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds or ()) - set(KINDS))
        if unknown or self.kinds == []:
            raise ValueError(
                f"qa.kinds={self.kinds}: expected some of {', '.join(KINDS)}. Leave it out for all of them."
            )
        require_at_least(self, questions_per_image=1, scene_interval=1)
        if not self.interval > 0:  # NaN is not, either
            raise ValueError(f"qa.interval={self.interval}: expected seconds above 0.")

    def asked(self) -> list[str]:
        """The kinds, in the order of `KINDS`."""
        return [kind for kind in KINDS if self.kinds is None or kind in self.kinds]
