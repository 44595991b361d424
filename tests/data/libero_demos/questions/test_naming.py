"""What LIBERO's objects are called."""

import pytest

from lerobot_gem.data.libero_demos.questions.naming import display_name


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("milk_1", "milk"),
        ("akita_black_bowl_2", "black bowl"),
        ("white_yellow_mug_1", "yellow and white mug"),
    ],
)
def test_names(name: str, called: str) -> None:
    assert display_name(name) == called
