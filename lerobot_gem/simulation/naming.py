"""Instructions that name another object of the same scene."""

import numpy as np

from lerobot_gem.simulation.placements import target_and_container
from lerobot_gem.simulation.scene import LiberoScene

# Instead of an object's name: any but the task's own, or any.
OTHER, ANY = "other", "any"


def words(name: str) -> str:
    """What LIBERO's instructions call an object, e.g. "cream cheese" for "cream_cheese_1"."""
    return name.rsplit("_", 1)[0].replace("_", " ")


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
    found = [name for name in candidates if words(name) == wanted]
    if not found:
        raise ValueError(
            f"named_object={wanted!r} is not in {scene.suite} task {scene.task_id}, where there are "
            f"{', '.join(map(words, candidates))}. Choose one of them, `{OTHER}` for any but the task's own, `{ANY}`, or other task_ids."
        )
    return found[0]


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
