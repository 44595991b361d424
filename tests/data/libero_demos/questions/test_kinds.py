"""What is asked and answered, on facts made up by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions.kinds import KINDS, Question, candidates, interior
from lerobot_gem.data.libero_demos.questions.scene_facts import OTHER, SceneFacts, Thing, View
from lerobot_gem.processing.answers import form_of
from lerobot_gem.simulation.cameras import Camera
from lerobot_gem.simulation.subtasks import STEPS, describe

_SIZE = 100


def _camera() -> Camera:
    """At (0, -2, 2), looking at the origin, 45 degrees down; the stored image's left is +x."""
    down = np.sqrt(0.5)
    rotation = np.array([[1, 0, 0], [0, down, -down], [0, down, down]])
    return Camera(np.array([0.0, -2.0, 2.0]), rotation, 0.4, _SIZE, _SIZE)


def _facts(**view) -> SceneFacts:
    """Milk in front on the left, ketchup behind on the right, a basket far behind, each seen as a square."""
    things = (
        Thing("milk", np.array([0.5, -0.3, 0.0]), True, "carton"),
        Thing("ketchup", np.array([-0.3, 0.2, 0.0]), True, "bottle"),
        Thing("basket", np.array([0.0, 0.6, 0.0])),
    )
    camera = _camera()
    labels = np.full((_SIZE, _SIZE), OTHER, np.int16)
    for number, thing in enumerate(things):
        column, row = camera.project(thing.centre)[0].astype(int)
        labels[row - 3 : row + 3, column - 3 : column + 3] = number
    made = View("observation.images.image", camera, labels, (0, 1, 2), True, True, np.array([30.5, 60.5]))
    return SceneFacts(
        things,
        (replace(made, **view),),
        np.array([0.5, -0.3, 0.2]),
        "pick up the milk and so on",
        (0, 2),
        0,
        tuple(describe(step, "milk", "basket", "in") for step in range(len(STEPS))),
        1,
    )


def _ask(kind: str, facts: SceneFacts | None = None, times: int = 30) -> set[tuple[str, str]]:
    facts = facts or _facts()
    rng = np.random.default_rng(0)
    return {
        (q.question, q.answer) for _ in range(times) for q in candidates(facts, facts.views[0], [kind], rng)
    }


def _between(question: str, *names: str) -> list[str]:
    """The names in the order in which a question has them."""
    return sorted((name for name in names if name in question), key=question.index)


def test_points_are_on_their_object_and_boxes_around_it() -> None:
    labels = _facts().views[0].labels
    assert _ask("point") and _ask("box")
    for question, answer in _ask("point"):
        x, y = json.loads(answer)["point_2d"]
        [name] = _between(question, "milk", "ketchup", "basket")
        number = ["milk", "ketchup", "basket"].index(name)
        assert labels[int(y / 1000 * _SIZE), int(x / 1000 * _SIZE)] == number
    for question, answer in _ask("box"):
        left, top, right, bottom = (value * _SIZE // 1000 for value in json.loads(answer)["bbox_2d"])
        [name] = _between(question, "milk", "ketchup", "basket")
        mask = labels == ["milk", "ketchup", "basket"].index(name)
        assert mask[top:bottom, left:right].all() and mask.sum() == (bottom - top) * (right - left)


def test_the_middle_of_a_ring_is_not_on_it() -> None:
    mask = np.zeros((21, 21), bool)
    mask[3:18, 3:18] = True
    mask[8:13, 8:13] = False
    column, row = np.floor(interior(mask)).astype(int)
    assert mask[row - 1 : row + 2, column - 1 : column + 2].all()


def test_left_and_right_are_the_images() -> None:
    answers = _ask("left_right")
    columns = {"milk": 0, "basket": 1, "ketchup": 2}  # the image is mirrored: +x is left
    assert {answer for _, answer in answers} == {"left", "right"}
    for question, answer in answers:
        first, second = _between(question, *columns)
        subject, other = (second, first) if question.startswith("On which side") else (first, second)
        assert answer == ("left" if columns[subject] < columns[other] else "right")


def test_in_front_is_nearer_along_the_ground() -> None:
    order = ["milk", "ketchup", "basket"]
    answers = _ask("front_behind")
    assert {answer for _, answer in answers} == {"in front", "behind"}
    for question, answer in answers:
        first, second = _between(question, *order)
        assert answer == ("in front" if order.index(first) < order.index(second) else "behind")


def test_a_camera_that_looks_down_has_no_front() -> None:
    facts = _facts(camera=replace(_camera(), rotation=np.eye(3)))
    assert not _ask("front_behind", facts) and _ask("left_right", facts)


def test_the_nearer_one_is_named() -> None:
    assert {answer for _, answer in _ask("nearer")} == {"milk", "ketchup"}
    for question, answer in _ask("nearer"):
        first, second = _between(question, "milk", "ketchup", "basket")
        order = ["milk", "ketchup", "basket"]  # from the camera and from the gripper, which is above the milk
        assert answer == min(first, second, key=order.index)
    assert any("gripper" in question for question, _ in _ask("nearer"))
    assert not any("gripper" in question for question, _ in _ask("nearer", _facts(gripper=False)))


def test_distances_are_metric() -> None:
    expected = {("ketchup", "milk"): 0.943, ("basket", "milk"): 1.030, ("basket", "ketchup"): 0.5}
    assert _ask("object_distance")
    for question, answer in _ask("object_distance"):
        metres = expected[tuple(sorted(_between(question, "milk", "ketchup", "basket")))]
        assert answer == (f"{metres * 100:.0f} cm" if "centimetres" in question else f"{metres:.2f} m")
    assert ("How far is the gripper from the milk, in centimetres?", "20 cm") in _ask("gripper_distance")
    assert not _ask("gripper_distance", _facts(gripper=False))


def test_counts() -> None:
    answers = dict(_ask("count", times=200))
    assert answers["How many objects can be seen, without the robot and furniture?"] == "3"
    assert answers["How many cartons can be seen?"] == "1"
    assert answers["How many other objects are to the left of the ketchup in the picture?"] == "2"
    assert answers["How many other objects are closer to the camera than the basket?"] == "2"
    assert not _ask("count", _facts(complete=False))


def test_what_is_done_and_what_comes_next() -> None:
    assert {answer for _, answer in _ask("subtask")} == {"Lower the gripper around the milk."}
    assert {answer for _, answer in _ask("next_subtask")} == {"Close the gripper on the milk."}
    assert {answer for _, answer in _ask("progress")} == {"17%"}
    last = replace(_facts(), step=len(STEPS) - 1)
    assert not _ask("next_subtask", last) and {answer for _, answer in _ask("progress", last)} == {"83%"}
    assert all("six steps" in question or "its six" in question for question, _ in _ask("progress"))


def test_a_task_of_other_steps() -> None:
    facts = replace(_facts(grasp=None), named=(), target=None, subtasks=("Open the drawer.", "Close it."))
    assert {answer for _, answer in _ask("progress", facts)} == {"50%"}
    assert all("two steps" in question for question, _ in _ask("progress", facts))
    assert not _ask("affordance", facts)
    alone = replace(facts, subtasks=("Open the drawer.",), step=0)
    assert {answer for _, answer in _ask("subtask", alone)} == {"Open the drawer."}
    assert not _ask("progress", alone) and not _ask("next_subtask", alone)


def test_where_to_grasp() -> None:
    assert {answer for _, answer in _ask("affordance")} == {'{"point_2d": [305, 605]}'}
    assert not _ask("affordance", _facts(grasp=None))


# What is asked about two objects, and about what the task names.
OF_PAIRS = {"left_right", "front_behind", "nearer", "object_distance"}
OF_THE_TASK = {"affordance", "subtask", "next_subtask", "progress"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("visible", "silent"),
    [((), set(KINDS)), ((1,), OF_PAIRS | OF_THE_TASK), ((1, 2), OF_THE_TASK), ((0, 2), set())],
    ids=["nothing", "ketchup", "all but milk", "all but ketchup"],
)
def test_what_is_not_visible_is_not_mentioned(kind: str, visible: tuple[int, ...], silent: set[str]) -> None:
    """Neither milk, which the task is about, nor anything else."""
    questions = _ask(kind, _facts(visible=visible))
    assert bool(questions) == (kind not in silent)
    for question, answer in questions:
        for number, name in enumerate(("milk", "ketchup", "basket")):
            assert number in visible or name not in question + answer


@pytest.mark.parametrize("kind", KINDS)
def test_an_ambiguous_name_is_not_used(kind: str) -> None:
    facts = _facts()
    first, second, basket = facts.things
    twins = (replace(first, name="bowl", unique=False), replace(second, name="bowl", unique=False), basket)
    facts = replace(facts, things=twins, task="pick up the left bowl")
    questions = _ask(kind, facts)
    assert bool(questions) == (kind not in OF_PAIRS)  # only the basket has a name of its own
    for question, _ in questions:
        assert (
            "bowl" not in question or "The task is: Pick up the left bowl." in question or "told" in question
        )


# Of the answers; all others are texts.
FORMS = {
    **dict.fromkeys(("point", "affordance"), "point"),
    "box": "box",
    **dict.fromkeys(("count", "object_distance", "gripper_distance", "progress"), "number"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_words_vary_and_answers_have_the_form_of_their_kind(kind: str) -> None:
    answers = _ask(kind, times=60)
    assert len({question for question, _ in answers}) > 2
    for question, answer in answers:
        assert question[0].isupper() and question[-1] in ".?" and "{" not in question
        assert form_of(answer) == FORMS.get(kind, "text")


def test_candidates_depend_on_the_generator_alone() -> None:
    facts = _facts()
    one, same, other = (
        candidates(facts, facts.views[0], KINDS, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert all(isinstance(question, Question) and question.camera == facts.views[0].key for question in one)
    answers = {kind: [question.answer for question in one if question.kind == kind] for kind in KINDS}
    assert all(len(set(found)) == len(found) <= 2 for found in answers.values())
