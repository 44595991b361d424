"""Which questions a collection asks."""

from dataclasses import dataclass

from lerobot_gem.data.libero_demos.questions.kinds import KINDS


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
        if self.questions_per_image < 1:
            raise ValueError(
                f"qa.questions_per_image must be at least 1, but is {self.questions_per_image}. Leave out --qa for none."
            )
        if self.interval <= 0:
            raise ValueError(f"qa.interval must be positive, but is {self.interval}.")

        if self.scene_interval < 1:
            raise ValueError(
                f"qa.scene_interval must be at least 1, which asks about each scene, but is {self.scene_interval}."
            )

    def asked(self) -> list[str]:
        """The kinds, in the order of `KINDS`."""
        return [kind for kind in KINDS if self.kinds is None or kind in self.kinds]
