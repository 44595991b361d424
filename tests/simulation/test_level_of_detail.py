"""Meshes with fewer triangles look the same."""

from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.simulation.level_of_detail import simplify
from lerobot_gem.simulation.placements import stream_rng, wide_placement
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene

SIZE = 40


def _sphere() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions (which are the normals), texture coordinates and faces; the texture has a seam at longitude 0."""
    u, v = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 1, SIZE), indexing="ij")
    polar, longitude = np.pi * u, 2 * np.pi * v
    around = np.stack(
        [np.sin(polar) * np.cos(longitude), np.sin(polar) * np.sin(longitude), np.cos(polar)], -1
    )
    around[:, -1] = around[:, 0]
    corner = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:])
    )
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return around.reshape(-1, 3), np.stack([u, v], -1).reshape(-1, 2), faces, around.reshape(-1, 3)


def test_a_sphere_stays_a_sphere() -> None:
    vertices, texture, faces, normals = _sphere()
    points, directions, coordinates, corners = simplify(vertices, normals, texture, faces, 400)
    assert 300 < len(corners) <= 400 and len(points) <= len(vertices)
    assert len(points) == len(directions) == len(coordinates) and corners.max() < len(points)
    a, b, c = points[corners].transpose(1, 0, 2)
    middles = (a + b + c) / 3
    assert np.linalg.norm(middles, axis=1).min() > 0.9
    # No triangle is a fold: all look outwards, or all inwards, as they did.
    outwards = (np.cross(b - a, c - a) * middles).sum(1)
    assert (outwards > 0).all() or (outwards < 0).all()
    used = np.unique(corners)
    np.testing.assert_allclose(np.linalg.norm(directions[used], axis=1), 1, atol=1e-6)
    assert (directions[used] * points[used]).sum(1).min() > 0.9


def test_a_texture_stays_where_it_was_on_both_sides_of_its_seam() -> None:
    vertices, texture, faces, normals = _sphere()
    points, _, coordinates, corners = simplify(vertices, normals, texture, faces, 400)
    # No triangle reaches from one end of the texture to the other; a pole, where all longitudes meet, is in the middle.
    assert np.ptp(coordinates[corners][..., 1], axis=1).max() <= 0.5
    used = np.unique(corners)
    away_from_poles = used[np.abs(points[used, 2]) < 0.8]
    longitude = 2 * np.pi * coordinates[away_from_poles, 1]
    expected = np.stack([np.cos(longitude), np.sin(longitude)], 1)
    actual = points[away_from_poles, :2]
    assert ((actual / np.linalg.norm(actual, axis=1, keepdims=True)) * expected).sum(1).min() > 0.95


def test_vertices_stored_for_each_triangle_are_one_surface() -> None:
    vertices, texture, faces, normals = _sphere()
    own = np.arange(faces.size).reshape(-1, 3)
    flat = faces.ravel()
    split = simplify(vertices[flat], normals[flat], texture[flat], own, 400)
    whole = simplify(vertices, normals, texture, faces, 400)
    assert abs(len(split[-1]) - len(whole[-1])) < 20
    # No cracks: as many places as a closed surface of so many triangles has (Euler: V = F / 2 + 2).
    places = np.unique(split[0][np.unique(split[-1])].round(9), axis=0)
    assert len(places) == pytest.approx(len(split[-1]) / 2 + 2, abs=6)


def test_vertices_without_triangles_and_meshes_without_texture() -> None:
    vertices, _, faces, normals = _sphere()
    alone = np.full((1, 3), 9.0)
    none = np.zeros((len(vertices) + 1, 0))
    points, _, coordinates, corners = simplify(
        np.concatenate([alone, vertices]), np.concatenate([alone, normals]), none, faces + 1, 200
    )
    assert coordinates.shape == (len(points), 0)
    assert np.abs(points[corners]).max() < 1.2


@pytest.mark.slow
@pytest.mark.libero
def test_a_simplified_scene_looks_like_the_whole_one(scene: LiberoScene, libero: Path) -> None:
    simplified = LiberoScene("libero_object", 0, control_freq=5, mesh_triangles=500)
    try:
        placement = wide_placement(scene, stream_rng("evaluation", 0))
        for one in (scene, simplified):
            one.reset()
            one.place(placement)
        for camera in CAMERAS.values():
            whole, other = (
                scene.renderer.render(camera, depth=True),
                simplified.renderer.render(camera, depth=True),
            )
            assert np.abs(whole.rgb.astype(int) - other.rgb).mean() < 7
            assert whole.depth is not None and other.depth is not None
            assert (np.abs(whole.depth - other.depth) < 0.01).mean() > 0.985
            same = scene.renderer.segment(camera).geoms == simplified.renderer.segment(camera).geoms
            assert same.mean() > 0.99
        # What is drawn changes, the model does not.
        arrays = ("vert", "normal", "texcoord", "face", "facenum", "facenormal", "facetexcoord")
        for name in (*(f"mesh_{array}" for array in arrays), "geom_group"):
            models = [getattr(one.env.sim.model._model, name) for one in (scene, simplified)]
            np.testing.assert_array_equal(*models)
    finally:
        simplified.close()
