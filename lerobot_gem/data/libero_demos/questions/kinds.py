"""The kinds of questions: what can be asked about an image, and what is right.

A kind is a function of the facts and one camera's view. It returns a few questions with different answers, so that
answers can be balanced afterwards, or none. Whatever a question names, the camera shows (`View.visible`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.scene_facts import SceneFacts, Thing, View
from lerobot_gem.data.libero_demos.questions.wording import (
    PLURALS,
    UNITS,
    write_box,
    write_distance,
    write_number,
    write_point,
    write_question,
)
from lerobot_gem.processing.language import sentence

# Differences below these are not asked about: share of the image's width, and metres.
LEAST_SHIFT, LEAST_GAP = 0.05, 0.04
# A camera that looks down more steeply than this (radians from the horizon) has no front and behind.
_STEEPEST_VIEW = np.deg2rad(60)
# Questions of one kind about one image that are kept to choose from.
_MOST = 2

Candidate = tuple[str, str]
Kind = Callable[[SceneFacts, View, np.random.Generator], list[Candidate]]


@dataclass(frozen=True)
class Question:
    """A question about one image, with its answer.

    Attributes:
        kind: A key of `KINDS`.
        camera: Key of the image.
        question: What is asked.
        answer: What is right.
    """

    kind: str
    camera: str
    question: str
    answer: str


def candidates(
    facts: SceneFacts, view: View, kinds: Iterable[str], rng: np.random.Generator
) -> list[Question]:
    """Questions of each kind that can be asked about a view."""
    return [
        Question(kind, view.key, question, answer)
        for kind in kinds
        for question, answer in KINDS[kind](facts, view, rng)
    ]


def _nameable(facts: SceneFacts, view: View) -> list[int]:
    """Visible objects whose name says which one is meant."""
    return [number for number in view.visible if facts.things[number].unique]


def _pairs(facts: SceneFacts, view: View, rng: np.random.Generator) -> Iterable[tuple[Thing, Thing]]:
    """Pairs of nameable objects in random order and direction."""
    numbers = rng.permutation(_nameable(facts, view))
    for index in rng.permutation(len(numbers) * (len(numbers) - 1) // 2):
        first = int((1 + np.sqrt(1 + 8 * index)) // 2)
        second = int(index - first * (first - 1) // 2)
        yield facts.things[numbers[first]], facts.things[numbers[second]]


def _different(options: Iterable[Candidate]) -> list[Candidate]:
    """The first few with different answers."""
    chosen: dict[str, Candidate] = {}
    for question, answer in options:
        chosen.setdefault(answer, (question, answer))
        if len(chosen) == _MOST:
            break
    return list(chosen.values())


def interior(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(2,) column and row of the middle of the pixel of a mask (H, W) that is farthest from its edge."""
    import cv2

    left, top, right, bottom = extent(mask)
    # The image's border is an edge, too.
    part = np.pad(mask[top:bottom, left:right], 1).astype(np.uint8)
    distance = cv2.distanceTransform(part, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return np.array([left + column + 0.5, top + row + 0.5])


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of the pixels of a mask (H, W); right and bottom are one past the last pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def point(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """A pixel on an object."""
    result = []
    for number in rng.permutation(_nameable(facts, view))[:_MOST]:
        answer = write_point(interior(view.labels == number), *view.labels.shape)
        result.append((write_question("point", rng, name=facts.things[number].name), answer))
    return result


def box(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """The box around an object's visible pixels."""
    result = []
    for number in rng.permutation(_nameable(facts, view))[:_MOST]:
        mask = view.labels == number
        answer = write_box(*extent(mask), *mask.shape)
        result.append((write_question("box", rng, name=facts.things[number].name), answer))
    return result


def column_of(view: View, thing: Thing) -> float:
    """Where an object's centre is along the image's width, from 0 to 1 within the image."""
    pixel, _ = view.camera.project(thing.centre)
    return float(pixel[0]) / view.camera.width


def away(view: View, thing: Thing) -> float:
    """How far an object's centre is from the camera along the ground, in the direction of its view, metres."""
    forward = -view.camera.rotation[:2, 2]
    return float((thing.centre - view.camera.position)[:2] @ forward / np.hypot(*forward))


def range_of(view: View, thing: Thing) -> float:
    """Distance between the camera and an object's centre, metres."""
    return float(np.linalg.norm(thing.centre - view.camera.position))


def left_right(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """Left or right in the stored image, by the objects' centres."""
    for one, other in _pairs(facts, view, rng):
        shift = column_of(view, one) - column_of(view, other)
        if abs(shift) >= LEAST_SHIFT:
            return _opposites(
                "left_right", one, other, ("left", "right") if shift < 0 else ("right", "left"), rng
            )
    return []


def front_behind(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """In front: nearer to the camera along the ground. Not for cameras that look down."""
    if abs(view.camera.rotation[2, 2]) > np.sin(_STEEPEST_VIEW):
        return []
    for one, other in _pairs(facts, view, rng):
        gap = away(view, one) - away(view, other)
        if abs(gap) >= LEAST_GAP:
            answers = ("in front", "behind") if gap < 0 else ("behind", "in front")
            return _opposites("front_behind", one, other, answers, rng)
    return []


def _opposites(
    template: str, one: Thing, other: Thing, answers: tuple[str, str], rng: np.random.Generator
) -> list[Candidate]:
    """The question about one relative to the other, and the other way round."""
    return [
        (write_question(template, rng, name=one.name, other=other.name), answers[0]),
        (write_question(template, rng, name=other.name, other=one.name), answers[1]),
    ]


def nearer(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """Which of two objects is nearer to the camera, or to the gripper."""

    def options() -> Iterable[Candidate]:
        for one, other in _pairs(facts, view, rng):
            to_gripper = view.gripper and rng.random() < 0.5
            if to_gripper:
                distances = [float(np.linalg.norm(thing.centre - facts.gripper)) for thing in (one, other)]
            else:
                distances = [range_of(view, thing) for thing in (one, other)]
            if abs(distances[0] - distances[1]) < LEAST_GAP:
                continue
            template = "nearer_gripper" if to_gripper else "nearer_camera"
            answer = one.name if distances[0] < distances[1] else other.name
            yield write_question(template, rng, name=one.name, other=other.name), answer

    return _different(options())


def object_distance(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """Between the centres of two objects."""

    def options() -> Iterable[Candidate]:
        for one, other in _pairs(facts, view, rng):
            unit = _unit(rng)
            answer = write_distance(float(np.linalg.norm(one.centre - other.centre)), UNITS[unit])
            yield write_question("object_distance", rng, name=one.name, other=other.name, unit=unit), answer

    return _different(options())


def gripper_distance(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """Between the point between the finger tips and an object's centre, where the gripper is in view."""

    def options() -> Iterable[Candidate]:
        for number in rng.permutation(_nameable(facts, view) if view.gripper else []):
            unit, thing = _unit(rng), facts.things[int(number)]
            answer = write_distance(float(np.linalg.norm(thing.centre - facts.gripper)), UNITS[unit])
            yield write_question("gripper_distance", rng, name=thing.name, unit=unit), answer

    return _different(options())


def _unit(rng: np.random.Generator) -> str:
    return list(UNITS)[rng.integers(len(UNITS))]


def count(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """Objects: all, of a category, or on one side of another. Not where it depends on how much of one has to be seen."""
    if not view.complete or not view.visible:
        return []
    shown = [facts.things[number] for number in view.visible]
    options: list[tuple[str, dict[str, str], int]] = [("count_all", {}, len(shown))]
    categories = [thing.category for thing in shown]
    for category in sorted({category for category in categories if category}):
        options.append(("count_category", {"plural": PLURALS[category]}, categories.count(category)))
    columns = np.array([column_of(view, thing) for thing in shown])
    ranges = np.array([range_of(view, thing) for thing in shown])
    for index in [index for index, thing in enumerate(shown) if thing.unique]:
        shift, gap = np.delete(columns - columns[index], index), np.delete(ranges - ranges[index], index)
        name = {"name": shown[index].name}
        if len(shift) and np.abs(shift).min() >= LEAST_SHIFT:
            options.append(("count_left", name, (shift < 0).sum()))
            options.append(("count_right", name, (shift > 0).sum()))
        if len(gap) and np.abs(gap).min() >= LEAST_GAP:
            options.append(("count_closer", name, (gap < 0).sum()))
    order = [options[index] for index in rng.permutation(len(options))]
    return _different(
        (write_question(template, rng, **slots), str(number)) for template, slots, number in order
    )


def affordance(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """Where the scripted policy would grip the target, while it does not hold it and its grip is to be seen."""
    if view.grasp is None or facts.target is None or facts.target not in view.visible:
        return []
    target = facts.things[facts.target]
    if target.unique:
        question = write_question("affordance", rng, name=target.name)
    elif set(facts.named) <= set(view.visible):
        # Of several with one name, the task says which one.
        question = write_question("affordance_task", rng, task=sentence(facts.task))
    else:
        return []
    return [(question, write_point(view.grasp, *view.labels.shape))]


def subtask(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """What is being done."""
    return _planning("subtask", facts, view, rng, facts.subtasks[facts.step])


def next_subtask(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """What comes after that, if anything."""
    if facts.step + 1 == len(facts.subtasks):
        return []
    return _planning("next_subtask", facts, view, rng, facts.subtasks[facts.step + 1])


def progress(facts: SceneFacts, view: View, rng: np.random.Generator) -> list[Candidate]:
    """The share of the steps that are done; not of a single one, which says nothing."""
    steps = len(facts.subtasks)
    if steps < 2:
        return []
    return _planning("progress", facts, view, rng, f"{facts.step / steps:.0%}", steps=write_number(steps))


def _planning(
    kind: str, facts: SceneFacts, view: View, rng: np.random.Generator, answer: str, **slots: str
) -> list[Candidate]:
    """A question with the task, where what the task names is to be seen."""
    if not set(facts.named) <= set(view.visible):
        return []
    return [(write_question(kind, rng, task=sentence(facts.task), **slots), answer)]


KINDS: dict[str, Kind] = {
    "point": point,
    "box": box,
    "left_right": left_right,
    "front_behind": front_behind,
    "nearer": nearer,
    "object_distance": object_distance,
    "gripper_distance": gripper_distance,
    "count": count,
    "affordance": affordance,
    "subtask": subtask,
    "next_subtask": next_subtask,
    "progress": progress,
}
