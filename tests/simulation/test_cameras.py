"""Where points of the world are in the stored images."""

import mujoco
import numpy as np
import pytest

from lerobot_gem.simulation.cameras import Camera
from lerobot_gem.simulation.placements import apply_benchmark
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene


@pytest.fixture
def camera() -> Camera:
    """One metre above the origin, looking down, up in the image is +y; half of its view is one metre."""
    return Camera(np.array([0.0, 0.0, 1.0]), np.eye(3), 1.0, 100, 200)


def test_stored_images_are_upright_and_mirrored(camera: Camera) -> None:
    pixels, depth = camera.project(np.array([[0.0, 0, 0], [0, 0.5, 0], [0.5, 0, 0], [0, 0, 0.5]]))
    np.testing.assert_allclose(pixels, [[100, 50], [100, 25], [75, 50], [100, 50]])
    np.testing.assert_allclose(depth, [1, 1, 1, 0.5])


def test_what_is_behind_the_camera_has_negative_depth(camera: Camera) -> None:
    assert camera.project(np.array([0.0, 0.0, 3.0]))[1] == -2


def test_spheres_that_reach_into_the_image(camera: Camera) -> None:
    centres = np.array([[0, 0, 0], [0, 1.2, 0], [0, 1.2, 0], [2.3, 0, 0], [0, 0, 1.5], [0, 0, 1.1]], float)
    radii = np.array([0.1, 0.1, 0.3, 0.1, 0.1, 0.2])
    assert camera.may_see(centres, radii).tolist() == [True, False, True, False, False, True]


@pytest.mark.libero
@pytest.mark.parametrize("name", CAMERAS.values())
def test_points_that_rays_hit_are_projected_back_to_their_pixels(scene: LiberoScene, name: str) -> None:
    apply_benchmark(scene, 0)
    model, data = scene.env.sim.model._model, scene.env.sim.data._data
    index = model.camera(name).id
    half = np.tan(np.deg2rad(model.cam_fovy[index]) / 2)
    groups = np.array([0, 1, 0, 0, 0, 0], np.uint8)
    rng, hits = np.random.default_rng(0), 0
    # (x, y) in MuJoCo's own image, from -1 to 1, to the right and up.
    for x, y in rng.uniform(-1, 1, (20, 2)):
        ray = data.cam_xmat[index].reshape(3, 3) @ np.array([x * half, y * half, -1.0])
        distance = mujoco.mj_ray(model, data, data.cam_xpos[index], ray, groups, 1, -1, np.zeros(1, np.int32))
        if distance < 0:
            continue
        hits += 1
        pixel, depth = scene.renderer.camera(name).project(data.cam_xpos[index] + distance * ray)
        np.testing.assert_allclose(
            pixel, [(1 - x) * scene.renderer.width / 2, (1 - y) * scene.renderer.height / 2], atol=1e-6
        )
        assert depth == pytest.approx(distance)
    assert hits >= 15
