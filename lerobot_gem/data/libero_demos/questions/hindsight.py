"""The sub-tasks of a recorded demonstration, told in hindsight from its states.

A person's demonstration has no phases. What it does is told by what comes about: an object is held, an object is let go,
a drawer is open. A frame's sub-task is the next of these. Tasks of any goal can be told so, since nothing but LIBERO's
own predicates and the contacts of the fingers are asked.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.naming import display_name
from lerobot_gem.data.libero_demos.questions.plans import Plan
from lerobot_gem.processing.language import sentence
from lerobot_gem.simulation.scene import LiberoScene

# What lasts less than this is a touch, seconds.
_SHORTEST = 0.25
_DONE = {"open": "Open", "close": "Close", "turnon": "Turn on", "turnoff": "Turn off"}
# What LIBERO calls the positions of a joint at which that is so.
_RANGES = {predicate: f"default_{predicate}_ranges" for predicate in _DONE}
_SIDES = {"left": "to the left of", "right": "to the right of", "front": "in front of", "back": "behind"}
_LEVELS = ("top", "middle", "bottom")


class Hindsight:
    """A `Planner` for demonstrations of any task.

    Args:
        scene: The scene.
    """

    def __init__(self, scene: LiberoScene):
        self._scene = scene
        self._facts = [*(("held", name) for name in scene.objects), *_changing(scene.env)]
        # For each of them, whether it was true in each frame.
        self._seen: list[list[bool]] = [[] for _ in self._facts]
        regions = scene.env.parsed_problem["regions"]
        names = {name for _, *arguments in scene.goal for name in arguments}
        names |= {regions[name]["target"] for name in names if name in regions}
        self.named = tuple(number for number, name in enumerate(scene.objects) if name in names)

    def see(self, action: NDArray[np.floating]) -> None:
        """See `Planner`."""
        env = self._scene.env
        gripper = env.robots[0].gripper
        for (fact, name), seen in zip(self._facts, self._seen, strict=True):
            if fact == "held":
                seen.append(bool(env._check_grasp(gripper, env.objects_dict[name])))
            else:
                seen.append(bool(env._eval_predicate([fact, name])))

    def plan(self, fps: int | None) -> Plan:
        """See `Planner`."""
        assert fps is not None  # there is no hindsight for unrelated frames
        least = max(1, round(_SHORTEST * fps))
        events: list[tuple[int, str]] = []
        for (fact, name), seen in zip(self._facts, self._seen, strict=True):
            for start, end in true_runs(seen, least):
                if fact != "held":
                    # What is so from the beginning was not done.
                    events += [(start, f"{_DONE[fact]} the {part_name(name, self._scene.env)}.")] * (
                        start > 0
                    )
                    continue
                events.append((start, f"Pick up the {display_name(name)}."))
                events.append((end, self._put(name)))
        events.sort(key=lambda event: event[0])
        frames = len(self._seen[0]) if self._seen else 0
        subtasks = tuple(text for _, text in events) or (sentence(self._scene.instruction),)
        # A frame belongs to the first event that is still to come; after the last one, to that.
        ends = [frame for frame, _ in events]
        steps = [min(sum(end <= frame for end in ends), len(subtasks) - 1) for frame in range(frames)]
        return Plan(subtasks, steps)

    def _put(self, name: str) -> str:
        for predicate, *arguments in self._scene.goal:
            if predicate in ("on", "in") and arguments[0] == name:
                return f"Put the {display_name(name)} {place_name(predicate, arguments[1], self._scene.env)}."
        return f"Put the {display_name(name)} down."


def true_runs(seen: Sequence[bool], least: int) -> list[tuple[int, int]]:
    """First frame, and the one behind the last, of each time that something was true; gaps and times below `least` are none.

    Args:
        seen: Whether it was, in each frame.
        least: Frames.
    """
    runs: list[tuple[int, int]] = []
    for frame, true in enumerate(seen):
        if not true:
            continue
        if runs and frame - runs[-1][1] < least:
            runs[-1] = (runs[-1][0], frame + 1)
        else:
            runs.append((frame, frame + 1))
    return [(start, end) for start, end in runs if end - start >= least]


def _changing(env: Any) -> list[tuple[str, str]]:
    """What may come about without being carried: predicates and the drawers, doors and stoves that they are about."""
    facts = []
    # A cabinet's drawers are sites with a joint each; of a fixture without such sites, all joints count.
    drawers = {
        name: site.parent_name
        for name, site in env.object_sites_dict.items()
        if site.joints and _ranges(env, site.parent_name).get(_RANGES["open"])
    }
    for name in (*drawers, *(name for name in env.fixtures_dict if name not in drawers.values())):
        ranges = _ranges(env, drawers.get(name, name))
        facts += [(predicate, name) for predicate in _DONE if ranges.get(_RANGES[predicate])]
    return facts


def _ranges(env: Any, fixture: str) -> dict[str, Any]:
    """Where LIBERO says that the joints of an object or fixture are open, closed, on or off; empty for one without joints."""
    properties = getattr(env.get_object(fixture), "object_properties", {})
    return properties.get("articulation", {})


def part_name(name: str, env: Any) -> str:
    """What a drawer's site or a fixture is called: "top drawer of the wooden cabinet".

    Args:
        name: LIBERO's.
        env: LIBERO's environment.
    """
    if name in env.fixtures_dict:
        return display_name(name)
    fixture = env.object_sites_dict[name].parent_name
    level = name.removeprefix(f"{fixture}_").removesuffix("_region")
    if level in _LEVELS:
        return f"{level} {'drawer' if 'cabinet' in fixture else 'part'} of the {display_name(fixture)}"
    return display_name(fixture)


def place_name(predicate: str, place: str, env: Any) -> str:
    """Where a goal puts something: "in the basket", "to the right of the plate".

    Args:
        predicate: "in" or "on".
        place: LIBERO's name of an object, a fixture or a region.
        env: LIBERO's environment.
    """
    regions = env.parsed_problem["regions"]
    target = regions[place]["target"] if place in regions else place
    if target == place:
        return f"{predicate} the {display_name(place)}"
    region = place.removeprefix(f"{target}_").removesuffix("_region")
    if side := re.fullmatch(r"(.+)_(left|right|front|back)", region):
        # Of a table, beside something that stands on it.
        return f"{_SIDES[side[2]]} the {display_name(side[1] + '_1')}"
    if region == "top_side":
        return f"on top of the {display_name(target)}"
    if compartment := re.fullmatch(r"(left|right|front|back)_contain", region):
        return f"in the {compartment[1]} compartment of the {display_name(target)}"
    if region in _LEVELS and "rack" not in target:
        return f"{predicate} the {part_name(place, env)}"
    return f"{predicate} the {display_name(target)}"
