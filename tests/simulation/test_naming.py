"""Instructions that name another object of the same scene."""

import numpy as np
import pytest

from lerobot_gem.simulation.naming import arrived, choose_object, instruction_naming, words
from lerobot_gem.simulation.placements import apply_wide, stream_rng
from lerobot_gem.simulation.scene import LiberoScene


def test_words() -> None:
    assert words("cream_cheese_1") == "cream cheese"


@pytest.mark.libero
def test_another_object_is_named(scene: LiberoScene) -> None:
    rng = np.random.default_rng(0)
    assert choose_object(scene, "milk", rng) == "milk_1"
    drawn = {choose_object(scene, "other", rng) for _ in range(50)}
    assert drawn == set(scene.objects) - {"alphabet_soup_1", "basket_1"}
    assert {choose_object(scene, "any", rng) for _ in range(50)} == drawn | {"alphabet_soup_1"}
    assert instruction_naming(scene, "milk_1") == "pick up the milk and place it in the basket"
    with pytest.raises(
        ValueError, match="named_object='ketchup' is not in libero_object task 0, where there are"
    ):
        choose_object(scene, "ketchup", rng)


@pytest.mark.libero
def test_arrived_is_told_of_each_object(scene: LiberoScene) -> None:
    apply_wide(scene, stream_rng("evaluation", 0))
    assert not any(arrived(scene, name) for name in ("milk_1", "butter_1"))
    above = scene.rest[0]["butter_1"].copy()
    above[:3] = scene.position("basket_1") + [0, 0, 0.08]
    scene.place({"butter_1": above})
    scene.settle(1.0)
    assert arrived(scene, "butter_1") and not arrived(scene, "milk_1") and not scene.success
