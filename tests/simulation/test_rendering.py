"""Pictures against MuJoCo's own geometry."""

import mujoco
import numpy as np
import pytest

from lerobot_gem.simulation.placements import apply_benchmark
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene

pytestmark = pytest.mark.libero


def _cast(
    scene: LiberoScene, camera: str, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a ray through each pixel centre hits (rows from the bottom): number of the shape, and distance along the
    optical axis; -1 for nothing."""
    model, data = scene.env.sim.model._model, scene.env.sim.data._data
    index = model.camera(camera).id
    height = np.tan(np.deg2rad(model.cam_fovy[index]) / 2)
    groups = np.array([0, 1, 0, 0, 0, 0], np.uint8)  # visual shapes, as rendered
    geom = np.zeros(1, np.int32)
    shapes, distances = [], []
    for row, column in zip(rows, columns, strict=True):
        y = ((row + 0.5) / scene.renderer.height * 2 - 1) * height
        x = ((column + 0.5) / scene.renderer.width * 2 - 1) * height  # the images are square
        ray = data.cam_xmat[index].reshape(3, 3) @ np.array([x, y, -1.0])
        hit = mujoco.mj_ray(model, data, data.cam_xpos[index], ray, groups, 1, -1, geom)
        distances.append(hit)  # in units of the ray, whose part along the axis is one
        shapes.append(geom[0])
    return np.array(shapes), np.array(distances)


@pytest.mark.parametrize("camera", CAMERAS.values())
def test_depth_is_metric(scene: LiberoScene, camera: str) -> None:
    apply_benchmark(scene, 0)
    scene.env.sim.forward()
    depth = scene.renderer.render(camera, depth=True).depth
    assert depth is not None and depth.dtype == np.float32
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, scene.renderer.height, 300), rng.integers(0, scene.renderer.width, 300)
    _, truth = _cast(scene, camera, rows, columns)
    hit = truth > 0
    assert hit.mean() > 0.9
    error = np.abs(depth[rows, columns] - truth)[hit]
    assert np.median(error) < 0.005


def test_colour_and_depth_are_aligned(scene: LiberoScene) -> None:
    """What is nearer than the ground is not ground-coloured: the same pixels hold the object in both."""
    apply_benchmark(scene, 0)
    empty = {name: pose + np.array([0, 0, 5.0, 0, 0, 0, 0]) for name, pose in scene.rest[0].items()}
    apply_benchmark(scene, 0)
    full = scene.observation(depth=True)
    scene.place(empty)
    bare = scene.observation(depth=True)
    key = "observation.images.image"
    nearer = (bare[f"{key}_depth"] - full[f"{key}_depth"])[..., 0] > 0.02
    changed = np.abs(bare[key].astype(int) - full[key].astype(int)).sum(-1) > 30
    assert nearer.sum() > 50
    assert changed[nearer].mean() > 0.8


@pytest.mark.parametrize("camera", CAMERAS.values())
def test_segmentation_names_the_shape_that_a_ray_hits(scene: LiberoScene, camera: str) -> None:
    apply_benchmark(scene, 0)
    segmentation = scene.renderer.segment(camera)
    rng = np.random.default_rng(0)
    # Half of the pixels on objects and robot, which are a small part of the image.
    model = scene.env.sim.model._model
    meshes = np.argwhere(model.geom_type[segmentation.geoms] == mujoco.mjtGeom.mjGEOM_MESH)
    rows, columns = np.concatenate(
        [rng.permutation(meshes)[:150], rng.integers(0, scene.renderer.height, (150, 2))]
    ).T
    hit, distance = _cast(scene, camera, rows, columns)
    same = hit == segmentation.geoms[rows, columns]
    assert same.mean() > 0.95  # the outlines are in doubt
    error = np.abs(segmentation.depth[rows, columns] - distance)[same & (hit >= 0)]
    assert np.median(error) < 0.005
