"""Instructions that name another object of the same scene."""

import numpy as np
import pytest

from lerobot_gem.simulation.naming import arrived, choose_object, instruction_naming, nameable, words
from lerobot_gem.simulation.placements import apply_wide, stream_rng
from lerobot_gem.simulation.scene import LiberoScene, definition_file


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
        ValueError,
        match="named_object='ketchup' is not in libero_object task 0: all chosen tasks have alphabet soup,",
    ):
        choose_object(scene, "ketchup", rng)


@pytest.mark.libero
def test_a_definition_tells_what_its_scene_lets_be_named(scene: LiberoScene) -> None:
    from libero.libero import benchmark

    definition = definition_file(benchmark.get_benchmark_dict()["libero_object"]().get_task(0)).read_text()
    assert nameable(definition) == {words(name) for name in scene.objects if name != "basket_1"}


def test_what_the_goal_is_about_can_be_named_and_its_place_not() -> None:
    objects = "(:fixtures\n floor - floor)\n(:objects\n bowl_1 bowl_2 - bowl\n bowl_10 - bowl\n red_cup_1 - red_cup\n plate_1 - plate)"
    for place in ("plate_1", "plate_1_top_region"):
        assert nameable(f"{objects}\n(:goal\n (And (On bowl_1 {place})))") == {"bowl", "red cup"}


@pytest.mark.libero
def test_arrived_is_told_of_each_object(scene: LiberoScene) -> None:
    apply_wide(scene, stream_rng("evaluation", 0))
    assert not any(arrived(scene, name) for name in ("milk_1", "butter_1"))
    above = scene.rest[0]["butter_1"].copy()
    above[:3] = scene.position("basket_1") + [0, 0, 0.08]
    scene.place({"butter_1": above})
    scene.settle(1.0)
    assert arrived(scene, "butter_1") and not arrived(scene, "milk_1") and not scene.success
