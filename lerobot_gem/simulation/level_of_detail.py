"""Meshes with as many triangles as a small picture can show.

A LIBERO scene has 308,000 triangles, nearly all of them smaller than a pixel of a picture of 128 px, and drawing them in
software takes 95 % of the time of a picture. Here vertices are merged as long as the surface stays where it was:
quadric error metrics (Garland & Heckbert 1997) with half-edge collapses, many at a time instead of one by one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A triangle may not turn by more than this while a neighbour is merged away (cosine; keeps surfaces from folding).
_LEAST_COSINE = 0.2
# Rounds remove fewer and fewer vertices; below this share the rest is not worth the time.
_LEAST_GAIN = 0.03
# Diagonal of a small object's bounding box, metres, and how much coarser than one anything may be.
_SMALL, _COARSEST = 0.1, 4.0
# How much a normal (of length 1) counts beside a texture coordinate (0 to 1) where a corner is given new ones.
_NORMAL_WEIGHT = 0.1

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def upload_simplified(model: Any, context: Any, tolerance: float) -> None:
    """Let a renderer draw the visual meshes of a model with fewer triangles; the model itself stays as it is.

    Args:
        model: MuJoCo's MjModel.
        context: an MjrContext that was made for it, and is current.
        tolerance: as in `simplify`, metres, for what is small enough to be looked at from close by.
    """
    import mujoco

    is_mesh = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_group == 1)
    for mesh in np.unique(model.geom_dataid[is_mesh]):
        start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        part = slice(start, start + count)
        corners, kept = _simplified(model, mesh, tolerance * _coarseness(model, mesh))
        left = slice(start, start + len(kept))
        arrays = (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord)
        saved = [array[part].copy() for array in arrays]
        try:
            for array in arrays:
                array[left] = corners
            model.mesh_facenum[mesh] = len(kept)
            mujoco.mjr_uploadMesh(model, context, int(mesh))
        finally:
            model.mesh_facenum[mesh] = count
            for array, values in zip(arrays, saved, strict=True):
                array[part] = values


def _coarseness(model: Any, mesh: int) -> float:
    """How much coarser than small objects a mesh may be: what is large is seen whole only from afar, and no camera comes
    near the arm's links."""
    body = int(model.geom_bodyid[np.flatnonzero(model.geom_dataid == mesh)[0]])
    if model.body(body).name.startswith("robot0_link"):
        return _COARSEST
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
    return float(np.clip(np.linalg.norm(np.ptp(vertices, axis=0)) / _SMALL, 1.0, _COARSEST))


def _simplified(model: Any, mesh: int, tolerance: float) -> tuple[Indices, Indices]:
    """Corners and faces of a mesh as `simplify` returns them, each corner with a fitting normal and texture coordinate.

    MuJoCo stores a vertex of a mesh from a file once for each normal and texture coordinate that it has.
    """
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
    faces = model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]
    normals = model.mesh_normal[model.mesh_normaladr[mesh] :][: len(vertices)]
    texture = np.zeros((len(vertices), 2))
    if model.mesh_texcoordadr[mesh] >= 0:
        texture = model.mesh_texcoord[model.mesh_texcoordadr[mesh] :][: len(vertices)]
    corners, kept = simplify(vertices, faces, tolerance, texture)
    attributes = np.concatenate([_NORMAL_WEIGHT * normals, texture], 1).astype(np.float64)
    return matching_corners(corners, faces[kept].astype(np.int64), vertices, attributes), kept


def simplify(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    tolerance: float,
    texture: NDArray[np.floating] | None = None,
) -> tuple[Indices, Indices]:
    """Merge vertices into neighbours while the surface stays where it was.

    Args:
        vertices: (V, 3) positions; equal ones count as one.
        faces: (F, 3) vertices of each triangle.
        tolerance: distance between a vertex and the surface that was merged into it, root mean square over its area,
            in the unit of `vertices`.
        texture: (V, 2) texture coordinates. Where they differ at one place there is a seam, which stays where it was.

    Returns:
        corners: (F', 3) vertices, a subset of the given ones, of the triangles that are left.
        kept: (F',) which of `faces` they were.
    """
    groups, representative = _weld(vertices)
    points = np.asarray(vertices, np.float64)[representative]
    corners = groups[faces]
    kept = np.flatnonzero(_is_triangle(corners))
    corners = corners[kept]
    patches = groups if texture is None else groups * len(texture) + _weld(texture)[0]
    quadrics = _quadrics(points, corners, np.unique(patches, return_inverse=True)[1][faces[kept]])
    refused: Indices = np.zeros(0, np.int64)
    rng = np.random.default_rng(0)
    left = len(np.unique(corners))
    while len(corners):
        merged_into, refused = _round(points, corners, quadrics, tolerance, refused, rng)
        moved = np.flatnonzero(merged_into != np.arange(len(points)))
        if len(moved) <= _LEAST_GAIN * left:
            break
        left -= len(moved)
        np.add.at(quadrics, merged_into[moved], quadrics[moved])
        corners = merged_into[corners]
        remains = _is_triangle(corners)
        corners, kept = corners[remains], kept[remains]
    return representative[corners], kept


def _weld(vertices: NDArray[np.floating]) -> tuple[Indices, Indices]:
    """(V,) which of G places each vertex (of two or three coordinates) is at, and (G,) one vertex of each place; a
    millionth of the size is equal."""
    offsets = np.asarray(vertices, np.float64) - vertices.min(0)
    steps = np.round(offsets / max(offsets.max(), 1e-9) * 2**20).astype(np.int64)
    keys = steps @ (1 << 21 * np.arange(steps.shape[1], dtype=np.int64))
    _, representative, groups = np.unique(keys, return_index=True, return_inverse=True)
    return groups, representative


def _is_triangle(corners: Indices) -> NDArray[np.bool_]:
    a, b, c = corners.T
    return (a != b) & (b != c) & (c != a)


def _normals(points: Array, corners: Indices) -> tuple[Array, Array]:
    """(F, 3) unit normals, zero for triangles without area, and (F,) twice the areas."""
    a, b, c = points[corners].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    area = np.linalg.norm(normals, axis=1)
    return normals / np.maximum(area, 1e-12)[:, None], area


def _quadrics(points: Array, corners: Indices, patches: Indices) -> Array:
    """(V, 4, 4): v^T Q v sums up the squared distances of v = (x, y, z, 1) to the planes around a vertex, each times the
    area of its triangle. An open edge of a patch counts as a plane, too, upright on its triangle; `patches` (F, 3) are
    corners which are only the same where the surface goes on."""
    normals, area = _normals(points, corners)
    result = np.zeros((len(points), 4, 4))
    for corner in corners.T:
        np.add.at(result, corner, _plane_products(normals, points[corner], area))
    sides = np.stack([corners, np.roll(corners, -1, axis=1)], -1).reshape(-1, 2)
    _, side, counts = _edges(patches)
    start, end = sides[counts[side] != 2].T
    along = points[end] - points[start]
    upright = np.cross(along, np.repeat(normals, 3, axis=0)[counts[side] != 2])
    length = np.linalg.norm(along, axis=1)
    products = _plane_products(upright / np.maximum(length, 1e-12)[:, None], points[start], length**2)
    for vertex in (start, end):
        np.add.at(result, vertex, products)
    return result


def _plane_products(normals: Array, through: Array, weights: Array) -> Array:
    """(N, 4, 4): p p^T for the planes p = (normal, offset), weighted."""
    planes = np.concatenate([normals, -(normals * through).sum(1, keepdims=True)], 1)
    return planes[:, :, None] * planes[:, None, :] * weights[:, None, None]


def _edges(corners: Indices) -> tuple[Indices, Indices, Indices]:
    """(E, 2) edges with the smaller vertex first; (3 F,) the edge of each side of each triangle, from corners 0 to 1, 1 to
    2, 2 to 0; (E,) the number of sides at each edge."""
    pairs = np.sort(np.stack([corners, np.roll(corners, -1, axis=1)], -1).reshape(-1, 2), axis=1)
    size = int(corners.max(initial=0)) + 1
    keys, side, counts = np.unique(pairs @ np.array([size, 1]), return_inverse=True, return_counts=True)
    return np.stack([keys // size, keys % size], 1), side, counts


def _round(
    points: Array,
    corners: Indices,
    quadrics: Array,
    tolerance: float,
    refused: Indices,
    rng: np.random.Generator,
) -> tuple[Indices, Indices]:
    """Merges that do not touch each other.

    Returns:
        (V,) the vertex that each vertex is merged into, itself for most, and the merges that were refused so far.
    """
    edges, _, _ = _edges(corners)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], 1)
    both = np.concatenate([edges, edges[:, ::-1]])  # from, to
    if len(refused):
        both = both[~np.isin(both @ np.array([len(points), 1]), refused)]
    start, end = both.T
    to = homogeneous[end]
    merged = quadrics[start] + quadrics[end]
    # The normals of the planes have length one: their squares sum up to the area.
    area = merged[:, 0, 0] + merged[:, 1, 1] + merged[:, 2, 2]
    error = ((merged @ to[:, :, None])[:, :, 0] * to).sum(1) / np.maximum(area, 1e-12)
    cheap = np.flatnonzero(error <= tolerance**2)
    start, end, error = start[cheap], end[cheap], error[cheap]
    # The cheapest first, short edges before long ones where the surface is flat. Chance decides among similar ones:
    # costs that rise along a surface would leave one merge to a round.
    cost = error + 1e-3 * tolerance * np.linalg.norm(points[start] - points[end], axis=1)
    rank = np.empty(len(start), np.int64)
    rank[np.argsort(cost * rng.uniform(1.0, 2.0, len(start)))] = np.arange(len(start))
    # A merge is made if it is the first one in the neighbourhood of its start, whose triangles change, and at its end.
    best = np.full(len(points), len(start))
    np.minimum.at(best, start, rank)
    np.minimum.at(best, end, rank)
    around = best.copy()
    np.minimum.at(around, edges[:, 0], best[edges[:, 1]])
    np.minimum.at(around, edges[:, 1], best[edges[:, 0]])
    made = np.flatnonzero((rank == around[start]) & (rank == best[end]))
    folds = _folds(points, corners, np.stack([start[made], end[made]], 1))
    refused = np.concatenate([refused, start[made[folds]] * len(points) + end[made[folds]]])
    made = made[~folds]
    merged_into = np.arange(len(points))
    merged_into[start[made]] = end[made]
    return merged_into, refused


def _members(groups: Indices, wanted: Indices) -> tuple[Indices, Indices]:
    """All pairs (i, j) with groups[j] == wanted[i], by i."""
    members = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[members], wanted)
    counts = np.searchsorted(groups[members], wanted, side="right") - first
    which = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return which, members[first[which] + within]


def _folds(points: Array, corners: Indices, moves: Indices) -> NDArray[np.bool_]:
    """(M,) whether moving a vertex onto another (M, 2) turns one of its triangles over."""
    move, corner = _members(corners.reshape(-1), moves[:, 0])
    before = corners[corner // 3]
    after = before.copy()
    after[np.arange(len(after)), corner % 3] = moves[move, 1]
    stays = _is_triangle(after)
    cosine = np.einsum("fi,fi->f", _normals(points, before)[0], _normals(points, after)[0])
    result = np.zeros(len(moves), bool)
    result[move[stays & (cosine < _LEAST_COSINE)]] = True
    return result


def matching_corners(
    corners: Indices, original: Indices, positions: NDArray[np.floating], attributes: Array
) -> Indices:
    """For each corner of a simplified mesh, the vertex at its position that looks most like the one it had.

    A scanned mesh stores a vertex several times, once for each normal and texture coordinate.

    Args:
        corners: (F', 3) vertices as `simplify` returns them.
        original: (F', 3) vertices of the same triangles before.
        positions: (V, 3).
        attributes: (V, A) what should stay alike.

    Returns:
        (F', 3) vertices at the positions of `corners`.
    """
    group, _ = _weld(positions)
    wanted = group[corners.reshape(-1)]
    which, candidate = _members(group, wanted)
    distance = ((attributes[candidate] - attributes[original.reshape(-1)[which]]) ** 2).sum(1)
    order = np.lexsort((distance, which))
    first = order[np.searchsorted(which[order], np.arange(len(wanted)))]
    return candidate[first].reshape(corners.shape)
