"""SceneFacts and answers against the simulator's state, which is looked at in another way: by rays."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions.kinds import KINDS, Question, candidates
from lerobot_gem.data.libero_demos.questions.naming import display_name
from lerobot_gem.data.libero_demos.questions.plans import ScriptedSteps
from lerobot_gem.data.libero_demos.questions.scene_facts import GRIPPER, Observer, SceneFacts
from lerobot_gem.simulation.arm_poses import ArmPoses
from lerobot_gem.simulation.placements import stream_rng, wide_placement
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene
from lerobot_gem.simulation.scripted_policies import make_scripted_policy
from lerobot_gem.simulation.subtasks import STEPS

pytestmark = pytest.mark.libero

_KEYS = {f"observation.images.{key}": camera for key, camera in CAMERAS.items()}


class Rays:
    """What rays through the pixels of a stored image hit."""

    def __init__(self, scene: LiberoScene, camera: str):
        self.scene = scene
        self.model, self.data = scene.env.sim.model._model, scene.env.sim.data._data
        self.camera = self.model.camera(camera).id
        self.half = np.tan(np.deg2rad(self.model.cam_fovy[self.camera]) / 2)

    def hit(self, x: float, y: float) -> tuple[str, np.ndarray]:
        """Name of the object ("gripper", "" for others) and point, for a place from 0 to 1 in the image."""
        # The image is upright and mirrored.
        local = np.array([(1 - 2 * x) * self.half, (1 - 2 * y) * self.half, -1.0])
        ray = self.data.cam_xmat[self.camera].reshape(3, 3) @ local
        geom, groups = np.zeros(1, np.int32), np.array([0, 1, 0, 0, 0, 0], np.uint8)
        start = self.data.cam_xpos[self.camera]
        distance = mujoco.mj_ray(self.model, self.data, start, ray, groups, 1, -1, geom)
        if geom[0] < 0:
            return "", start
        body = self.model.geom_bodyid[geom[0]]
        root = self.model.body(self.model.body_rootid[body]).name.removesuffix("_main")
        name = display_name(root) if root in self.scene.objects else ""
        if self.model.body(body).name.startswith("gripper0"):
            name = "gripper"
        return name, start + distance * ray

    def seen(self) -> dict[str, np.ndarray]:
        """(N, 2) places from 0 to 1 where each object is seen, the middles of pixels."""
        size = self.scene.renderer.height
        found: dict[str, list[tuple[float, float]]] = {}
        for row in range(size):
            for column in range(size):
                place = (column + 0.5) / size, (row + 0.5) / size
                found.setdefault(self.hit(*place)[0], []).append(place)
        return {name: np.array(places) for name, places in found.items()}


def _facts(observer: Observer) -> SceneFacts:
    """The present facts, with the step that the scripted policy is at."""
    steps = ScriptedSteps(observer.scene, observer.policy)
    facts = observer.facts(steps.named, steps.see(observer.policy.action()))
    plan = steps.plan(None)
    return replace(facts, subtasks=plan.subtasks, step=plan.steps[0])


@pytest.fixture(scope="module")
def states(scene: LiberoScene) -> Iterator[list[tuple[np.ndarray, SceneFacts, list[Question]]]]:
    """Six random scenes: simulator positions, facts, and many questions about them."""
    policy = make_scripted_policy(scene)
    observer, poses = Observer(scene, policy), ArmPoses(scene, policy)
    rng, made = stream_rng("evaluation", 7), []
    for number in range(6):
        scene.place(wide_placement(scene, rng))
        assert (poses.place_free, poses.place_holding, lambda _: poses.place_at_start())[number % 3](rng)
        facts = _facts(observer)
        questions = [
            question
            for _ in range(5)
            for view in facts.views
            for question in candidates(facts, view, KINDS, rng)
        ]
        made.append((scene.env.sim.data._data.qpos.copy(), facts, questions))
    yield made


def _restore(scene: LiberoScene, positions: np.ndarray) -> None:
    scene.env.sim.data._data.qpos[:] = positions
    scene.env.sim.forward()


def _names(text: str, facts: SceneFacts) -> list[str]:
    """Objects that a text names, in order."""
    names = [thing.name for thing in facts.things if thing.name in text]
    return sorted(names, key=text.index)


def test_every_kind_was_asked(states) -> None:
    assert {question.kind for _, _, questions in states for question in questions} == set(KINDS)


def test_points_lie_on_the_object_that_a_ray_hits(scene: LiberoScene, states) -> None:
    checked = 0
    for positions, facts, questions in states:
        _restore(scene, positions)
        for question in questions:
            if question.kind in ("point", "affordance"):
                x, y = (value / 1000 for value in json.loads(question.answer)["point_2d"])
                name, point = Rays(scene, _KEYS[question.camera]).hit(x, y)
                assert name == _names(question.question, facts)[0]
                if question.kind == "affordance":
                    grasp = make_scripted_policy(scene).grasp_point()
                    assert np.linalg.norm(point - grasp) < 0.06  # the grip is inside of the object
                checked += 1
    assert checked > 50


def test_what_a_camera_shows_and_the_boxes_around_it(scene: LiberoScene, states) -> None:
    for positions, facts, questions in states[:2]:
        _restore(scene, positions)
        for view in facts.views:
            seen = Rays(scene, _KEYS[view.key]).seen()
            for number in view.visible:
                assert len(seen[facts.things[number].name]) >= 8
            assert view.gripper == ("gripper" in seen)
            if view.complete:
                shown = {
                    name for name, places in seen.items() if name not in ("", "gripper") and len(places) > 3
                }
                assert shown <= {facts.things[number].name for number in view.visible}
            for question in questions:
                if question.kind == "box" and question.camera == view.key:
                    places = seen[_names(question.question, facts)[0]] * 1000
                    left, top, right, bottom = json.loads(question.answer)["bbox_2d"]
                    # From the middles of the outermost pixels to their edges; outlines are in doubt by one pixel.
                    pixel = 1000 / scene.renderer.width
                    first, last = places.min(0) - pixel / 2, places.max(0) + pixel / 2
                    np.testing.assert_allclose(first, [left, top], atol=1.1 * pixel)
                    np.testing.assert_allclose(last, [right, bottom], atol=1.1 * pixel)


def _middle(scene: LiberoScene, name: str) -> np.ndarray:
    """Middle of an object's collision shapes, from their own bounding boxes in the world."""
    model, data = scene.env.sim.model._model, scene.env.sim.data._data
    [body] = [scene.env.obj_body_id[key] for key in scene.objects if display_name(key) == name]
    corners = []
    for geom in np.flatnonzero((model.body_rootid[model.geom_bodyid] == body) & (model.geom_contype > 0)):
        signs = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 3)
        local = model.geom_aabb[geom, :3] + signs * model.geom_aabb[geom, 3:]
        corners.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    points = np.concatenate(corners)
    return (points.min(0) + points.max(0)) / 2


def test_relations_and_distances(scene: LiberoScene, states) -> None:
    for positions, facts, questions in states:
        _restore(scene, positions)
        data = scene.env.sim.data._data
        middle = {thing.name: _middle(scene, thing.name) for thing in facts.things}
        for question in questions:
            index = scene.env.sim.model._model.camera(_KEYS[question.camera]).id
            camera, axes = data.cam_xpos[index], data.cam_xmat[index].reshape(3, 3)
            names = _names(question.question, facts)
            offsets = [middle[name] - camera for name in names]
            if question.kind == "left_right":
                if question.question.startswith("On which side"):
                    offsets.reverse()
                # The camera's right is the stored image's left.
                rightward = [(offset @ axes)[0] / -(offset @ axes)[2] for offset in offsets]
                assert question.answer == ("left" if rightward[0] > rightward[1] else "right")
            elif question.kind == "front_behind":
                ground = -axes[:2, 2] / np.hypot(*axes[:2, 2])
                away = [offset[:2] @ ground for offset in offsets]
                assert question.answer == ("in front" if away[0] < away[1] else "behind")
            elif question.kind == "nearer":
                origin = scene.eef_position if "gripper" in question.question else camera
                near = min(names, key=lambda name: np.linalg.norm(middle[name] - origin))
                assert question.answer == near
            elif question.kind in ("object_distance", "gripper_distance"):
                value, unit = question.answer.split()
                ends = [middle[name] for name in names]
                if question.kind == "gripper_distance":
                    ends.append(scene.eef_position)
                metres = float(value) / {"cm": 100, "m": 1}[unit]
                assert metres == pytest.approx(np.linalg.norm(ends[0] - ends[1]), abs=0.016)
                assert {"cm": "centimetres", "m": "metres"}[unit] in question.question


def test_counts(scene: LiberoScene, states) -> None:
    checked = 0
    for positions, _, questions in states[:3]:
        _restore(scene, positions)
        for key, camera in _KEYS.items():
            asked = [q for q in questions if q.kind == "count" and q.camera == key]
            if not asked:
                continue
            seen = {name for name, places in Rays(scene, camera).seen().items() if len(places) > 1}
            seen -= {"", "gripper"}
            for question in asked:
                if re.match(r"How many objects", question.question):
                    assert int(question.answer) == len(seen)
                    checked += 1
                elif "cans" in question.question:
                    assert int(question.answer) == len(seen & {"alphabet soup", "tomato sauce"})
                    checked += 1
    assert checked > 0


def test_planning_questions_say_what_the_gripper_does(scene: LiberoScene, states) -> None:
    for positions, facts, questions in states:
        _restore(scene, positions)
        held = make_scripted_policy(scene).held()
        for question in questions:
            if question.kind == "subtask":
                assert question.answer.startswith(("Lift", "Carry", "Let go")) == held
            if question.kind == "progress":
                assert (int(question.answer.rstrip("%")) >= 50) == held
            if question.kind == "next_subtask":
                later = ["Lower", "Close", "Lift", "Carry", "Let go"]
                assert later[facts.step] == re.match("Let go|[A-Z][a-z]+", question.answer)[0]
    assert {STEPS[facts.step] for _, facts, _ in states} >= {"reach", "carry"}


def test_hidden_things_and_things_out_of_view_are_not_mentioned(scene: LiberoScene) -> None:
    policy = make_scripted_policy(scene)
    observer, poses = Observer(scene, policy), ArmPoses(scene, policy)
    rng = stream_rng("evaluation", 11)
    placement = wide_placement(scene, rng)
    hidden, lost = "butter_1", "milk_1"
    # The basket's walls hide it from the front camera; the other one is far above everything.
    placement[hidden][:3] = placement[policy.container][:3] - [0.03, 0, 0.02]
    placement[lost][2] = 5.0
    scene.place(placement)
    assert poses.place_at_start()
    facts = _facts(observer)
    [front] = [view for view in facts.views if view.key == "observation.images.image"]
    assert {facts.things[number].name for number in front.visible}.isdisjoint(["butter", "milk"])
    questions = [question for _ in range(20) for question in candidates(facts, front, KINDS, rng)]
    assert len({question.kind for question in questions}) > 8
    for question in questions:
        assert (
            "butter" not in question.question + question.answer
            and "milk" not in question.question + question.answer
        )


def test_labels_lie_on_the_stored_image(scene: LiberoScene) -> None:
    """Take an object away: what changes in the stored image are its labelled pixels."""
    policy = make_scripted_policy(scene)
    observer, poses = Observer(scene, policy), ArmPoses(scene, policy)
    scene.place(wide_placement(scene, stream_rng("evaluation", 3)))
    assert poses.place_at_start()
    facts = _facts(observer)
    with_it = scene.observation()
    for number, name in enumerate(scene.objects):
        pose = scene.pose(name)
        scene.place({name: pose + np.array([0, 0, 5.0, 0, 0, 0, 0])})
        without = scene.observation()
        scene.place({name: pose})
        for view in facts.views:
            changed = np.abs(with_it[view.key].astype(int) - without[view.key]).sum(-1) > 40
            mask = view.labels == number
            assert not (changed & ~mask).sum() > 0.1 * max(mask.sum(), 10)
            if number in view.visible:
                assert (changed & mask).sum() > 0.5 * mask.sum()
    assert all((view.labels == GRIPPER).any() for view in facts.views)
