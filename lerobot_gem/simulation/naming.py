"""Instructions that name another object of the same scene."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from lerobot_gem.simulation.placements import target_and_container
from lerobot_gem.simulation.scene import LiberoScene

# Instead of an object's name: any but the task's own, or any.
OTHER, ANY = "other", "any"


def words(name: str) -> str:
    """What LIBERO's instructions call an object, e.g. "cream cheese" for "cream_cheese_1"."""
    return name.rsplit("_", 1)[0].replace("_", " ")


def check_named(wanted: str, definitions: Mapping[str, Path]) -> None:
    """Look whether the scenes of all tasks have an object, before any of them is opened.

    Args:
        wanted: As in `choose_object`; empty for each task's own.
        definitions: {what a task is called: its BDDL file}, of pick-and-place tasks.

    Raises:
        ValueError: Some have no such object.
    """
    if wanted not in ("", OTHER, ANY):
        _require_in_all(wanted, {task: nameable(file.read_text()) for task, file in definitions.items()})


def nameable(bddl: str) -> set[str]:
    """What could be named in place of a pick-and-place task's own object, which is among them: all objects but the container.

    Args:
        bddl: The task's definition.
    """
    listed = " ".join(re.findall(r"\(:objects([^)]*)\)", bddl))
    names = re.sub(r"-\s+\S+", "", listed).split()
    # LIBERO names a region after the object that has it, "basket_1_contain_region".
    places = re.findall(r"\(:goal\s*\(And\s*\(\S+\s+\S+\s+([^\s)]+)\)", bddl)
    return {words(name) for name in names if not any(f"{place}_".startswith(f"{name}_") for place in places)}


def _require_in_all(wanted: str, known: Mapping[str, Collection[str]]) -> None:
    """Raise a ValueError unless an object is among those that each task has."""
    lacking = [task for task, objects in known.items() if wanted not in objects]
    if not lacking:
        return
    each = [set(objects) for objects in known.values()]
    in_all, in_some = (", ".join(sorted(found)) for found in (set.intersection(*each), set.union(*each)))
    told = f"no object is in all chosen tasks, but {in_some} in some. Choose"
    if in_all:
        told = f"all chosen tasks have {in_all}. Choose one of these,"
    raise ValueError(
        f"named_object={wanted!r} is not in {', '.join(lacking)}: {told} `{OTHER}` for any but the task's own, `{ANY}`, or other "
        "task_ids."
    )


def choose_object(scene: LiberoScene, wanted: str, rng: np.random.Generator) -> str:
    """An object of a scene that could be named in place of its task's own.

    Args:
        scene: The scene of a pick-and-place task.
        wanted: What it is called, e.g. "milk"; or "other", for any but the task's own, or "any".
        rng: Draws from the others.

    Raises:
        ValueError: The scene has no such object.
    """
    target, container = target_and_container(scene)
    candidates = [name for name in scene.objects if name != container and name not in scene.distractors]
    if wanted == OTHER:
        return str(rng.choice([name for name in candidates if name != target]))
    if wanted == ANY:
        return str(rng.choice(candidates))
    _require_in_all(wanted, {f"{scene.suite} task {scene.task_id}": [words(name) for name in candidates]})
    return next(name for name in candidates if words(name) == wanted)


def instruction_naming(scene: LiberoScene, name: str) -> str:
    """A scene's instruction with another object in place of its own.

    Args:
        scene: The scene of a pick-and-place task.
        name: The object, e.g. "milk_1".

    Raises:
        ValueError: The instruction does not have its own object's name once.
    """
    own = words(target_and_container(scene)[0])
    if scene.instruction.count(own) != 1:
        raise ValueError(f"The instruction {scene.instruction!r} does not name {own!r} once.")
    return scene.instruction.replace(own, words(name))


def arrived(scene: LiberoScene, name: str) -> bool:
    """Whether an object is where the goal wants the task's own."""
    predicate, _, place = scene.goal[0]
    return bool(scene.env._eval_predicate([predicate, name, place]))
