"""Objects added to a task's scene."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.simulation.distractors import distractor_names, with_objects
from lerobot_gem.simulation.placements import apply_wide, stream_rng, wide_placement, with_distractors
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import make_scripted_policy

BDDL = """(define (problem LIBERO_Floor_Manipulation)
  (:domain robosuite)
  (:language Pick the milk and place it in the basket)
    (:regions
      (bin_region
          (:target floor)
      )
    )
  (:objects
    milk_1 - milk
    basket_1 - basket
  )

  (:init
    (On milk_1 floor_bin_region)
  )
)
"""


def test_names_are_those_that_the_scene_lacks() -> None:
    assert distractor_names("libero_object", BDDL, 2) == ["alphabet_soup_1", "bbq_sauce_1"]
    assert "milk_1" not in distractor_names("libero_object", BDDL, 9)
    assert distractor_names("libero_goal", BDDL, 0) == []
    with pytest.raises(ValueError, match="distractors=10: expected 0 to 9"):
        distractor_names("libero_object", BDDL, 10)
    with pytest.raises(ValueError, match="distractors for libero_object, not for libero_goal"):
        distractor_names("libero_goal", BDDL, 1)


def test_objects_join_a_definition_behind_its_own() -> None:
    extended = with_objects(BDDL, ["ketchup_1", "butter_1"])
    assert extended.index("milk_1 - milk") < extended.index("ketchup_1 - ketchup")
    assert extended.index("ketchup_1 - ketchup") < extended.index("butter_1 - butter")
    assert "(On butter_1 floor_distractor_region_1)" in extended
    assert extended.count("(") == extended.count(")")


@pytest.fixture(scope="module")
def crowded(libero: Path) -> Iterator[LiberoScene]:
    scene = LiberoScene("libero_object", 0, control_freq=5, distractors=4)
    yield scene
    scene.close()


@pytest.mark.libero
def test_layout_is_that_of_the_scene_without_them(scene: LiberoScene, crowded: LiberoScene) -> None:
    for number in range(3):
        apply_wide(scene, stream_rng("evaluation", number))
        apply_wide(crowded, stream_rng("evaluation", number))
        for name in scene.objects:
            np.testing.assert_allclose(crowded.pose(name), scene.pose(name), atol=1e-5)
    assert set(crowded.objects) - set(scene.objects) == set(crowded.distractors)
    assert crowded.goal == scene.goal and len(crowded.distractors) == 4


@pytest.mark.libero
def test_they_find_room_in_sight_and_stay(crowded: LiberoScene) -> None:
    shapes, camera = crowded.rest[1], crowded.renderer.camera("agentview")
    for number in range(200):
        placement = with_distractors(
            crowded,
            wide_placement(crowded, stream_rng("evaluation", number)),
            stream_rng("questions", number),
        )
        assert set(placement) == set(crowded.objects)
        for name in crowded.distractors:
            point = placement[name][:3]
            pixel, _ = camera.project(point)
            assert (pixel > 0).all() and (pixel < crowded.renderer.height).all()
            for other in crowded.objects:
                if other != name:
                    distance = np.hypot(*(point - placement[other][:3])[:2])
                    assert distance > shapes[name].radius + shapes[other].radius
    apply_wide(crowded, stream_rng("evaluation", 0))
    before = {name: crowded.pose(name) for name in crowded.distractors}
    crowded.settle(1.0)
    for name, pose in before.items():
        np.testing.assert_allclose(crowded.pose(name)[:3], pose[:3], atol=3e-3)


@pytest.mark.libero
def test_scripted_policy_is_not_in_their_way(crowded: LiberoScene) -> None:
    solved = 0
    for number in range(4):
        apply_wide(crowded, stream_rng("evaluation", number))
        policy = make_scripted_policy(crowded)
        solved += any(crowded.step(policy.action()) for _ in range(80))
    assert solved >= 3
