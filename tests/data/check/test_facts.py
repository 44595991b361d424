"""What the facts say of themselves; how they are found is in test_inspector.py."""

from pathlib import Path

import pytest

from lerobot_gem.data.check.facts import Inspection, StageFacts

STAGES = [
    StageFacts("connector", lacking="no depth", errors=["no depth"]),
    StageFacts("joint", errors=["both", "joint"]),
    StageFacts("action", errors=["both", "action"]),
]


@pytest.mark.parametrize(
    ("asked", "errors"),
    [("connector", ["no depth"]), ("joint", ["both", "joint"]), (None, ["both", "joint", "action"])],
)
def test_errors_are_those_of_what_was_asked_or_can_be_trained(asked: str | None, errors: list[str]):
    found = Inspection("local/x", Path(), None, 5, 1, 1, stages=STAGES, asked=asked)
    assert found.errors == errors


def test_if_nothing_can_be_trained_every_stage_is_judged():
    assert Inspection("local/x", Path(), None, 5, 1, 1, stages=STAGES[:1]).errors == ["no depth"]
