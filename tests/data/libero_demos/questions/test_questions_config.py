"""Which questions are asked for."""

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
        ({"questions_per_image": 0}, "qa.questions_per_image must be at least 1, but is 0"),
        ({"interval": 0}, "qa.interval must be positive, but is 0"),
        ({"scene_interval": 0}, "qa.scene_interval must be at least 1.*but is 0"),
    ],
)
def test_wrong_settings(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuestionsConfig(**change)
