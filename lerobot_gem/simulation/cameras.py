"""Where things are in a camera's image, as datasets store it.

Datasets hold LIBERO's images turned by 180 degrees (`rendering.flip`): upright, but mirrored. What is on the left in a
stored image is on the camera's right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        position: (3,) in the world, metres.
        rotation: (3, 3) whose columns are its right, its up, and the direction opposite to its view, in the world.
        tangent: Of half its vertical field of view.
        height: Of its image in pixels.
        width: Of its image in pixels.
    """

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    tangent: float
    height: int
    width: int

    def project(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where points of the world are in the stored image.

        To a fraction of a pixel and also beside the image, where robosuite's `project_points_from_world_to_camera` gives
        the nearest pixel of it.

        Args:
            points: (..., 3), metres.

        Returns:
            (..., 2) column and row; the pixel in column c and row r reaches from (c, r) to (c + 1, r + 1).
            (...) distance along the optical axis in metres; without meaning for the image where it is not positive.
        """
        local = (np.asarray(points) - self.position) @ self.rotation
        depth = -local[..., 2]
        scale = self.height / 2 / self.tangent / np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        column = self.width / 2 - local[..., 0] * scale
        row = self.height / 2 - local[..., 1] * scale
        return np.stack([column, row], -1), depth

    def may_see(self, centres: NDArray[np.floating], radii: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N,) whether a sphere reaches into the image: (N, 3) centres, (N,) radii, metres."""
        local = np.abs((centres - self.position) @ self.rotation * [1, 1, 0])
        depth = -(centres - self.position) @ self.rotation[:, 2]
        reaches = np.ones(len(centres), bool)
        for axis, tangent in enumerate((self.tangent * self.width / self.height, self.tangent)):
            outside = (local[:, axis] - depth * tangent) / np.hypot(1.0, tangent)
            reaches &= outside < radii
        return reaches


def camera_of(model: Any, data: Any, name: str, height: int, width: int) -> Camera:
    """A camera of a MuJoCo model in its present pose, with an image of `height` by `width` pixels."""
    index = model.camera(name).id
    tangent = float(np.tan(np.deg2rad(model.cam_fovy[index]) / 2))
    return Camera(
        data.cam_xpos[index].copy(), data.cam_xmat[index].reshape(3, 3).copy(), tangent, height, width
    )
