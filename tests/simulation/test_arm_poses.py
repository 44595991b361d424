"""Arms that are put somewhere instead of moving there."""

import numpy as np
import pytest

from lerobot_gem.simulation.arm_poses import ArmPoses
from lerobot_gem.simulation.placements import apply_wide, stream_rng, wide_placement
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene
from lerobot_gem.simulation.scripted_policies import make_scripted_policy
from tests.simulation.test_scripted_policies import steps_to_success

pytestmark = pytest.mark.libero


@pytest.mark.parametrize("holding", [False, True])
def test_solves_from_random_arm_poses(scene: LiberoScene, holding: bool) -> None:
    policy = make_scripted_policy(scene)
    poses = ArmPoses(scene, policy)
    for number in range(2):
        rng = stream_rng("training", 11, number)
        scene.place(wide_placement(scene, rng))
        assert (poses.place_holding if holding else poses.place_free)(rng)
        assert policy.held() == holding
        assert steps_to_success(scene, policy) is not None


def test_an_arm_at_the_start_is_where_episodes_start(scene: LiberoScene) -> None:
    apply_wide(scene, stream_rng("training", 11))
    start = scene.eef_position.copy()
    poses = ArmPoses(scene, make_scripted_policy(scene))
    assert poses.place_free(np.random.default_rng(0))
    assert np.abs(scene.eef_position - start).max() > 0.02
    assert poses.place_at_start()
    assert np.abs(scene.eef_position - start).max() < 0.01  # settled a little, the first time


def test_fingers_are_put_where_they_touch_what_they_hold(scene: LiberoScene) -> None:
    policy = make_scripted_policy(scene)
    poses = ArmPoses(scene, policy)
    rng = stream_rng("training", 13)
    scene.place(wide_placement(scene, rng))
    assert poses.place_holding(rng, simulate=False)
    assert policy.held()
    model, data = scene.env.sim.model._model, scene.env.sim.data._data
    bodies = model.geom_bodyid[data.contact.geom[: data.ncon]]
    target = scene.env.obj_body_id[policy.target]
    touching = {
        model.body(body).name for pair in bodies if target in model.body_rootid[pair] for body in pair
    }
    assert {"gripper0_leftfinger", "gripper0_rightfinger"} <= touching
    # As wide as the object and no wider: the simulated grip ends up there.
    width = np.ptp(scene.fingers)
    poses.place_holding(stream_rng("training", 13, 1), simulate=True)
    assert width == pytest.approx(np.ptp(scene.fingers), abs=0.006)


def test_the_wrist_camera_is_never_in_an_object(scene: LiberoScene) -> None:
    apply_wide(scene, stream_rng("training", 11))
    poses = ArmPoses(scene, make_scripted_policy(scene))
    assert poses.place_at_start()
    [name] = [name for name in scene.objects if name.startswith("butter")]
    pose = scene.pose(name)
    model, data = scene.env.sim.model._model, scene.env.sim.data._data
    camera = scene.renderer.camera(CAMERAS["image2"]).position
    # Away from the hand, which is not to be touched.
    outwards = np.append((camera - scene.eef_position)[:2], 0) / np.linalg.norm(
        (camera - scene.eef_position)[:2]
    )
    for distance, is_free in ((0.03, False), (0.12, True)):
        pose[:3] = camera + distance * outwards
        scene.place({name: pose})
        roots = model.body_rootid[model.geom_bodyid[data.contact.geom[: data.ncon]]]
        assert scene.env.obj_body_id[name] not in roots
        assert poses.place_at_start() == is_free
