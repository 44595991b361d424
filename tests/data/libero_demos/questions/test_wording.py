"""How questions and answers are written."""

import json
import re

import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions.wording import (
    TEMPLATES,
    UNITS,
    write_box,
    write_distance,
    write_point,
    write_question,
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_wording_of_a_question_names_the_same(template: str) -> None:
    slots = [set(re.findall(r"{(\w+)}", text)) for text in TEMPLATES[template]]
    assert all(found == slots[0] for found in slots)
    rng, filled = np.random.default_rng(0), dict.fromkeys(slots[0], "milk")
    written = {write_question(template, rng, **filled) for _ in range(60)}
    assert written == {text.format(**filled) for text in TEMPLATES[template]}


def test_coordinates_are_thousandths_of_width_and_height() -> None:
    assert json.loads(write_point(np.array([50.0, 50.0]), height=100, width=200)) == {"point_2d": [250, 500]}
    assert json.loads(write_box(0, 25, 200, 100, height=100, width=200)) == {"bbox_2d": [0, 250, 1000, 1000]}


def test_distances_have_the_unit_that_was_asked_for() -> None:
    assert write_distance(0.2149, UNITS["centimetres"]) == "21 cm"
    assert write_distance(0.2149, UNITS["metres"]) == "0.21 m"
