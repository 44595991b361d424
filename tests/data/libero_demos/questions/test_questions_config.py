"""Which questions are asked for."""

import math

import pytest

from lerobot_gem.data.libero_demos.questions.kinds import KINDS
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig


def test_all_kinds_or_those_that_are_named() -> None:
    assert QuestionsConfig().asked() == list(KINDS)
    assert QuestionsConfig(kinds=["box", "point"]).asked() == ["point", "box"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["points"]}, r"qa.kinds=\['points'\]: expected some of point, box,"),
        ({"kinds": []}, r"qa.kinds=\[\]: expected some of"),
        ({"questions_per_image": 0}, "questions_per_image=0: expected at least 1"),
        ({"interval": 0}, "qa.interval=0: expected seconds above 0"),
        ({"interval": math.nan}, "qa.interval=nan: expected seconds above 0"),
        ({"scene_interval": 0}, "scene_interval=0: expected at least 1"),
    ],
)
def test_wrong_settings(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuestionsConfig(**change)
