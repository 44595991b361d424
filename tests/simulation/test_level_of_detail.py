"""Meshes with fewer triangles look the same."""

from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.simulation.level_of_detail import matching_corners, simplify
from lerobot_gem.simulation.placements import layout_rng, wide_layout
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene


def _grid(function, size: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a surface over a closed parameter square."""
    u, v = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    vertices = np.stack(function(u, v), -1).reshape(-1, 3)
    corner = np.arange(size * size).reshape(size, size)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:])
    )
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def _sphere() -> tuple[np.ndarray, np.ndarray]:
    def function(u: np.ndarray, v: np.ndarray):
        theta, phi = np.pi * u, 2 * np.pi * v
        return np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)

    return _grid(function)


def test_a_sphere_stays_a_sphere() -> None:
    vertices, faces = _sphere()
    corners, kept = simplify(vertices, faces, 0.01)
    assert 50 < len(corners) < len(faces) / 2
    assert len(np.unique(kept)) == len(kept) and kept.max() < len(faces)
    # No triangle is a fold: their middles are near the surface, their normals point outwards or all inwards.
    a, b, c = vertices[corners].transpose(1, 0, 2)
    middles = (a + b + c) / 3
    assert np.linalg.norm(middles, axis=1).min() > 0.9
    outwards = (np.cross(b - a, c - a) * middles).sum(1)
    assert (outwards > 0).all() or (outwards < 0).all()


def test_a_smaller_tolerance_keeps_more() -> None:
    counts = [len(simplify(*_sphere(), tolerance)[0]) for tolerance in (0.1, 0.01, 0.001, 0.0)]
    assert counts == sorted(counts) and counts[0] < counts[1] < counts[2]


def test_edges_of_an_open_surface_stay() -> None:
    vertices, faces = _grid(lambda u, v: (u, v, 0 * u))
    corners, _ = simplify(vertices, faces, 1e-6)
    assert len(corners) < len(faces) / 4
    a, b, c = vertices[corners].transpose(1, 0, 2)
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 == pytest.approx(1)


def test_vertices_at_one_place_are_one() -> None:
    vertices, faces = _sphere()
    split = vertices[faces].reshape(-1, 3)
    own = np.arange(len(split)).reshape(-1, 3)
    # As many triangles go as from the same mesh in one piece.
    assert len(simplify(split, own, 0.01)[0]) == len(simplify(vertices, faces, 0.01)[0])


def test_moved_corners_take_the_most_similar_vertex_of_their_new_place() -> None:
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    attributes = np.array([[0.0], [0.1], [0.9], [0.0], [0.95]])
    corners, original = np.array([[0, 1, 3]]), np.array([[0, 4, 3]])
    assert matching_corners(corners, original, positions, attributes).tolist() == [[0, 2, 3]]


@pytest.mark.libero
def test_a_simplified_scene_looks_like_the_whole_one(scene: LiberoScene, libero: Path) -> None:
    simplified = LiberoScene("libero_object", 0, control_freq=5, mesh_tolerance=0.0005)
    try:
        layout = wide_layout(scene, layout_rng("evaluation", 0))
        for one in (scene, simplified):
            one.reset()
            one.place(layout)
        for camera in CAMERAS.values():
            whole, other = scene.render(camera, depth=True), simplified.render(camera, depth=True)
            assert np.abs(whole.rgb.astype(int) - other.rgb).mean() < 6
            assert whole.depth is not None and other.depth is not None
            assert (np.abs(whole.depth - other.depth) < 0.01).mean() > 0.98
            same = scene.segment(camera).geoms == simplified.segment(camera).geoms
            assert same.mean() > 0.97
        # What is drawn changes, the model does not.
        for name in ("mesh_face", "mesh_facenum", "mesh_facetexcoord", "geom_group"):
            models = [getattr(one.env.sim.model._model, name) for one in (scene, simplified)]
            np.testing.assert_array_equal(*models)
    finally:
        simplified.close()
