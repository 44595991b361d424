"""A turned camera and a raised ground: both in the simulation, neither in the layout."""

import numpy as np
import pytest

from lerobot_gem.simulation.placements import apply_wide, stream_rng
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scene_changes import SceneChanges
from lerobot_gem.simulation.scripted_policies import make_scripted_policy


def draw(scene: LiberoScene, changes: SceneChanges, number: int = 3) -> dict[str, np.ndarray]:
    apply_wide(scene, stream_rng("evaluation", number), changes)
    return {name: scene.pose(name) for name in scene.objects}


@pytest.fixture
def restored(scene: LiberoScene):
    yield scene
    scene.turn_camera(0.0)
    scene.raise_ground(0.0)


@pytest.mark.parametrize("amount", [[0.1], [1.0, 0.0], [0.0, float("nan")], float("inf")])
def test_amounts_are_numbers_or_ranges(amount) -> None:
    with pytest.raises(ValueError, match=r"table_height=.*: expected one number, or"):
        SceneChanges(table_height=amount)


@pytest.mark.libero
def test_without_changes_everything_is_as_it_was(restored: LiberoScene) -> None:
    poses, image = draw(restored, SceneChanges()), restored.renderer.render("agentview", depth=True)
    draw(restored, SceneChanges(20.0, 0.04))
    again, same = draw(restored, SceneChanges()), restored.renderer.render("agentview", depth=True)
    for name, pose in poses.items():
        np.testing.assert_array_equal(again[name], pose)
    np.testing.assert_array_equal(same.rgb, image.rgb)
    np.testing.assert_array_equal(same.depth, image.depth)


@pytest.mark.libero
def test_camera_turns_about_the_middle(restored: LiberoScene) -> None:
    poses, before = draw(restored, SceneChanges()), restored.renderer.camera("agentview")
    picture = restored.renderer.render("agentview").rgb.astype(int)
    turned_poses, after = (
        draw(restored, SceneChanges(camera_turn=20.0)),
        restored.renderer.camera("agentview"),
    )
    for name, pose in poses.items():
        np.testing.assert_array_equal(turned_poses[name], pose)
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(after.position, turn @ before.position, atol=1e-9)
    np.testing.assert_allclose(after.rotation, turn @ before.rotation, atol=1e-6)
    # The middle of the workspace stays where it is in the image, all else moves.
    np.testing.assert_allclose(after.project(np.zeros(3))[0], before.project(np.zeros(3))[0], atol=1e-6)
    assert np.abs(restored.renderer.render("agentview").rgb - picture).mean() > 10


@pytest.mark.libero
def test_objects_stand_on_raised_ground(restored: LiberoScene) -> None:
    poses, low = draw(restored, SceneChanges()), restored.renderer.render("agentview", depth=True)
    raised = draw(restored, SceneChanges(table_height=0.04))
    for name, pose in poses.items():
        np.testing.assert_allclose(raised[name][:2], pose[:2], atol=1e-3)
        np.testing.assert_allclose(raised[name][2] - pose[2], 0.04, atol=1e-3)
    restored.settle(1.0)
    for name, pose in raised.items():
        np.testing.assert_allclose(restored.pose(name)[:3], pose[:3], atol=2e-3)
    high = restored.renderer.render("agentview", depth=True)
    # The ground is nearer to the camera; the walls are not.
    assert np.median(low.depth - high.depth) > 0.03
    assert not restored.success


@pytest.mark.libero
def test_ranges_are_drawn_for_each_layout(restored: LiberoScene) -> None:
    changes = SceneChanges([-20.0, 20.0], [0.0, 0.06])
    drawn = []
    for number in range(4):
        draw(restored, changes, number)
        drawn.append((restored.camera_turn, restored.ground))
    assert len({turn for turn, _ in drawn}) == len({height for _, height in drawn}) == 4
    assert all(-20 <= turn <= 20 and 0 <= height <= 0.06 for turn, height in drawn)
    draw(restored, changes, 0)
    assert (restored.camera_turn, restored.ground) == drawn[0]


@pytest.mark.libero
def test_scripted_policy_solves_changed_layouts(restored: LiberoScene) -> None:
    solved = 0
    for number in range(4):
        draw(restored, SceneChanges(20.0, [0.02, 0.06]), number)
        policy = make_scripted_policy(restored)
        solved += any(restored.step(policy.action()) for _ in range(80))
    assert solved >= 3
