"""Sub-tasks from what comes about, on a world made up by hand; `test_replaying.py` has LIBERO's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions.hindsight import Hindsight, part_name, place_name, true_runs

FPS = 8  # of which 0.25 s are two frames


class _World:
    """A kitchen: a bowl, a cabinet with two drawers, a stove. `true` holds what is so at the moment."""

    def __init__(self, goal: list[list[str]]):
        self.true: set[tuple[str, str]] = set()
        drawers = {
            f"wooden_cabinet_1_{level}_region": SimpleNamespace(parent_name="wooden_cabinet_1", joints=["j"])
            for level in ("top", "middle")
        }
        side = SimpleNamespace(parent_name="wooden_cabinet_1", joints=[])
        self.object_sites_dict = {**drawers, "wooden_cabinet_1_top_side": side}
        # LIBERO's stove has the ranges of a drawer, too, which are empty.
        nothing = {"default_open_ranges": [], "default_close_ranges": []}
        ranges = {
            "wooden_cabinet_1": {"default_open_ranges": [-0.16], "default_close_ranges": [0.0]},
            "flat_stove_1": {**nothing, "default_turnon_ranges": [0.5], "default_turnoff_ranges": [-0.005]},
        }
        self.fixtures_dict = {
            name: SimpleNamespace(object_properties={"articulation": found}) for name, found in ranges.items()
        }
        self.fixtures_dict["wine_rack_1"] = SimpleNamespace(object_properties={"vis_site_names": {}})
        self.objects_dict = {"akita_black_bowl_1": "akita_black_bowl_1", "plate_1": "plate_1"}
        self.robots = [SimpleNamespace(gripper=None)]
        targets = {name: name.rsplit("_1_")[0] + "_1" for name in self.object_sites_dict}
        targets["kitchen_table_plate_right_region"] = "kitchen_table"
        self.parsed_problem = {"regions": {name: {"target": target} for name, target in targets.items()}}
        self.goal = goal
        self.scene: Any = SimpleNamespace(
            env=self, objects=list(self.objects_dict), goal=goal, instruction="do it"
        )

    def get_object(self, name: str) -> Any:
        return self.fixtures_dict.get(name)

    def _check_grasp(self, gripper: object, name: str) -> bool:
        return ("held", name) in self.true

    def _eval_predicate(self, predicate: list[str]) -> bool:
        return tuple(predicate) in self.true


def _told(world: _World, *frames: tuple[int, set[tuple[str, str]]]) -> list[str]:
    """The sub-tasks of frames: how many, and what is true in them."""
    hindsight = Hindsight(world.scene)
    for count, true in frames:
        world.true = true
        for _ in range(count):
            hindsight.see(np.zeros(7))
    plan = hindsight.plan(FPS)
    return [plan.subtasks[step] for step in plan.steps]


HELD = ("held", "akita_black_bowl_1")
OPEN = ("open", "wooden_cabinet_1_top_region")
CLOSED = ("close", "wooden_cabinet_1_top_region")
IN_DRAWER = ["in", "akita_black_bowl_1", "wooden_cabinet_1_top_region"]


def test_a_drawer_is_opened_and_filled_though_the_goal_does_not_say_so() -> None:
    told = _told(_World([IN_DRAWER]), (4, {CLOSED}), (3, {OPEN}), (5, {OPEN, HELD}), (2, {OPEN}))
    assert told == [
        *["Open the top drawer of the wooden cabinet."] * 4,
        *["Pick up the black bowl."] * 3,
        *["Put the black bowl in the top drawer of the wooden cabinet."] * 7,
    ]


def test_what_is_so_from_the_beginning_was_not_done_and_a_touch_is_no_grip() -> None:
    on = ("turnon", "flat_stove_1")
    told = _told(
        _World([["turnon", "flat_stove_1"]]), (2, {OPEN}), (1, {OPEN, HELD}), (3, {OPEN}), (3, {OPEN, on})
    )
    assert told == ["Turn on the stove."] * 9


def test_without_any_event_the_task_is_the_only_sub_task() -> None:
    assert _told(_World([["on", "plate_1", "flat_stove_1"]]), (3, set())) == ["Do it."] * 3


def test_what_no_goal_says_is_put_down() -> None:
    told = _told(_World([["turnon", "flat_stove_1"]]), (2, set()), (3, {HELD}), (1, set()))
    assert told == ["Pick up the black bowl."] * 2 + ["Put the black bowl down."] * 4


def test_the_objects_that_the_goal_names() -> None:
    assert Hindsight(_World([IN_DRAWER]).scene).named == (0,)
    assert Hindsight(_World([["on", "akita_black_bowl_1", "plate_1"]]).scene).named == (0, 1)


@pytest.mark.parametrize(
    ("predicate", "place", "said"),
    [
        ("on", "plate_1", "on the plate"),
        ("in", "wooden_cabinet_1_middle_region", "in the middle drawer of the wooden cabinet"),
        ("on", "wooden_cabinet_1_top_side", "on top of the wooden cabinet"),
        ("on", "kitchen_table_plate_right_region", "to the right of the plate"),
    ],
)
def test_places(predicate: str, place: str, said: str) -> None:
    assert place_name(predicate, place, _World([])) == said


def test_parts() -> None:
    assert part_name("wooden_cabinet_1_top_region", _World([])) == "top drawer of the wooden cabinet"
    assert part_name("flat_stove_1", _World([])) == "stove"


def test_short_gaps_and_short_times_are_none() -> None:
    seen = [bool(int(digit)) for digit in "0011101100010011"]
    assert true_runs(seen, least=2) == [(2, 8), (14, 16)]
