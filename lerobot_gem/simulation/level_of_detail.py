"""Meshes with as many triangles as a small image can show.

A LIBERO scene has 308,000 triangles, nearly all of them smaller than a pixel of an image of 128 px, and drawing them in
software takes nine tenths of the time of an image. Here `fast-simplification` merges them (quadric error metrics,
Garland & Heckbert 1997).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Indices = NDArray[np.integer]


def upload_simplified(model: Any, context: Any, triangles: int, visual_group: int = 1) -> None:
    """Let a renderer draw the visual meshes of a model with fewer triangles; the model itself stays as it is.

    Args:
        model: MuJoCo's MjModel.
        context: An MjrContext that was made for it, and is current.
        triangles: As in `simplify`, for each mesh.
        visual_group: Group of the shapes that are drawn; robosuite's is 1.
    """
    import mujoco

    is_visual_mesh = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_group == visual_group)
    for mesh in np.unique(model.geom_dataid[is_visual_mesh]):
        count = model.mesh_facenum[mesh]
        if count <= triangles:
            continue
        faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + count)
        # MuJoCo stores a vertex once for each of its normals and texture coordinates: one number means all three.
        vertices, normals, texture = (
            array[start : start + model.mesh_vertnum[mesh]]
            for array, start in (
                (model.mesh_vert, model.mesh_vertadr[mesh]),
                (model.mesh_normal, model.mesh_normaladr[mesh]),
                (model.mesh_texcoord, model.mesh_texcoordadr[mesh]),
            )
        )
        if model.mesh_texcoordadr[mesh] < 0:
            texture = np.zeros((len(vertices), 0))
        points, new_normals, new_texture, corners = simplify(
            vertices, normals, texture, model.mesh_face[faces], triangles
        )
        replacements: list[tuple[Any, Any]] = [
            (vertices, points),
            (normals, new_normals),
            (texture, new_texture),
        ]
        replacements += [
            (indices[faces], corners)
            for indices in (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord)
        ]
        originals = [array.copy() for array, _ in replacements]
        try:
            for array, values in replacements:
                array[: len(values)] = values
            model.mesh_facenum[mesh] = len(corners)
            mujoco.mjr_uploadMesh(model, context, int(mesh))
        finally:
            model.mesh_facenum[mesh] = count
            for (array, _), values in zip(replacements, originals, strict=True):
                array[:] = values


def simplify(
    vertices: Array, normals: Array, texture: Array, faces: Indices, triangles: int
) -> tuple[Array, Array, Array, Indices]:
    """Merge vertices of a mesh until few triangles are left.

    Args:
        vertices: (V, 3) positions. A place has a vertex for each of its normals and texture coordinates.
        normals: (V, 3).
        texture: (V, 2) texture coordinates, or (V, 0).
        faces: (F, 3) vertices of each triangle; F exceeds `triangles`.
        triangles: How many are left, about.

    Returns:
        (V', 3) positions, (V', 3) normals, (V', 2 or 0) texture coordinates and (F', 3) triangles; V' is at most V.
    """
    import fast_simplification
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    used, corners = np.unique(faces, return_inverse=True)
    # At a seam of the texture a place has several patches.
    patches, patch = np.unique(
        np.concatenate([vertices, texture], 1, dtype=np.float64)[used], axis=0, return_inverse=True
    )
    places, place = np.unique(patches[:, :3], axis=0, return_inverse=True)
    corners = patch[corners.reshape(-1, 3)]
    mesh = places, place[corners].astype(np.int32)
    points, _, collapses = fast_simplification.simplify(*mesh, target_count=triangles, return_collapses=True)
    *_, merged_into = fast_simplification.replay_simplification(*mesh, collapses)
    merged_into = merged_into[place]  # -1 where all triangles are gone
    # A merged vertex at a seam stays several, too: the parts that hang together among what it was merged from.
    edges = np.stack([corners, np.roll(corners, -1, axis=1)]).reshape(2, -1)
    within = edges[:, merged_into[edges[0]] == merged_into[edges[1]]]
    links = coo_array((np.ones(within.shape[1]), within), shape=(len(patches),) * 2)
    count, merged = connected_components(links, directed=False)
    point = np.zeros(count, np.int64)
    point[merged] = merged_into
    # Each looks like the mean of its parts.
    sums = np.zeros((count, 3 + texture.shape[1]))
    np.add.at(sums, merged[patch], np.concatenate([normals, texture], 1)[used])
    directions = sums[:, :3] / np.maximum(np.linalg.norm(sums[:, :3], axis=1, keepdims=True), 1e-12)
    left = _is_triangle(merged_into[corners])
    return points[point], directions, sums[:, 3:] / np.bincount(merged[patch])[:, None], merged[corners[left]]


def _is_triangle(corners: Indices) -> NDArray[np.bool_]:
    a, b, c = corners.T
    return (a != b) & (b != c) & (c != a) & (corners.min(1) >= 0)
