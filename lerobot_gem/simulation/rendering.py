"""Images of a robosuite simulation: colour, metric depth, and which shape each pixel shows."""

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.cameras import Camera, camera_of
from lerobot_gem.simulation.level_of_detail import upload_simplified

# A group of shapes that is not drawn.
_HIDDEN_GROUP = 5


@cache
def _depth_conversion() -> Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]:
    """robosuite's, which prints when it is imported that one of its wrappers needs gym."""
    with redirect_stdout(None):
        from robosuite.utils.camera_utils import get_real_depth_map
    return get_real_depth_map


@dataclass(frozen=True)
class CameraFrame:
    """One camera's image as LIBERO delivers it, before LeRobot's flip.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32, metres along the optical axis, or None when not asked for.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None


@dataclass(frozen=True)
class Segmentation:
    """Which shape each pixel shows, as LIBERO delivers images, before LeRobot's flip.

    Attributes:
        geoms: (H, W) int32, MuJoCo's number of the shape; -1 where there is none.
        depth: (H, W) float32, metres along the optical axis.
    """

    geoms: NDArray[np.int32]
    depth: NDArray[np.float32]


def flip(image: NDArray[Any]) -> NDArray[Any]:
    """Turn an image (H, W, ...) as `LiberoProcessorStep` does: both axes reversed, contiguous."""
    return np.ascontiguousarray(image[::-1, ::-1])


class Renderer:
    """Draws a simulation with one GL context of its own, only when asked to.

    Args:
        sim: Robosuite's MjSim.
        height: Of the images in pixels.
        width: Of the images in pixels.
        multisampling: MuJoCo's default 4x antialiasing; rendering takes about twice as long with it.
        mesh_triangles: Draw each mesh with at most about this number of triangles (see `level_of_detail`), and leave out
            what is outside of an image; None draws what LIBERO draws.
    """

    def __init__(
        self,
        sim: Any,
        height: int,
        width: int,
        multisampling: bool = False,
        mesh_triangles: int | None = None,
    ):
        self.height, self.width, self.mesh_triangles = height, width, mesh_triangles
        self._sim = sim
        self._context: Any = self._make_context(multisampling)

    def render(self, camera: str, depth: bool = False) -> CameraFrame:
        """Draw what a camera sees, colour and depth in one pass.

        Args:
            camera: LIBERO's name of it, e.g. one of `CAMERAS.values()`.
            depth: Read the depth buffer, too.
        """
        self._draw(camera, segmentation=False)
        pixels = self._context.read_pixels(self.width, self.height, depth=depth)
        if not depth:
            return CameraFrame(pixels, None)
        rgb, buffer = pixels
        return CameraFrame(rgb, self._metres(buffer))

    def segment(self, camera: str) -> Segmentation:
        """Draw which shape each pixel of a camera's image shows."""
        import mujoco

        self._draw(camera, segmentation=True)
        colours = np.empty((self.height, self.width, 3), np.uint8)
        buffer = np.empty((self.height, self.width), np.float32)
        view = mujoco.MjrRect(0, 0, self.width, self.height)
        mujoco.mjr_readPixels(colours, buffer, view, self._context.con)
        # The colour is a number: 0 for nothing, else one more than the shape's place among those drawn. (robosuite's own
        # reader adds up bytes, which overflow with numpy 2.)
        drawn = self._context.scn.geoms[: self._context.scn.ngeom]
        geoms = np.full(len(drawn) + 1, -1, np.int32)
        for shape in drawn:
            if shape.objtype == mujoco.mjtObj.mjOBJ_GEOM and shape.segid >= 0:
                geoms[shape.segid + 1] = shape.objid
        red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
        numbers = red | green << 8 | blue << 16
        return Segmentation(geoms[numbers], self._metres(buffer))

    def camera(self, name: str) -> Camera:
        """Where a camera is and how it projects, now."""
        return camera_of(self._sim.model._model, self._sim.data._data, name, self.height, self.width)

    def _draw(self, camera: str, segmentation: bool) -> None:
        import mujoco

        model = self._sim.model._model
        # Another scene in this process may have made its own context current.
        self._context.gl_ctx.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context.con)
        groups = None
        if self.mesh_triangles is not None:
            groups = model.geom_group.copy()
            seen = self.camera(camera).may_see(self._sim.data._data.geom_xpos, model.geom_rbound)
            # Planes have no bounding sphere, hence no radius.
            model.geom_group[~seen & (model.geom_rbound > 0)] = _HIDDEN_GROUP
        self._context.render(self.width, self.height, model.camera(camera).id, segmentation=segmentation)
        if groups is not None:
            model.geom_group[:] = groups

    def _metres(self, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
        return _depth_conversion()(self._sim, buffer).astype(np.float32)

    def _make_context(self, multisampling: bool) -> Any:
        from robosuite.utils.binding_utils import MjRenderContextOffscreen

        model = self._sim.model._model
        # Read once, when the context is made.
        if not multisampling:
            model.vis.quality.offsamples = 0
        model.vis.global_.offwidth, model.vis.global_.offheight = self.width, self.height
        context = MjRenderContextOffscreen(self._sim, device_id=-1)
        context.vopt.geomgroup[0] = 0  # collision shapes
        context.vopt.geomgroup[1] = 1  # visual shapes
        if self.mesh_triangles is not None:
            upload_simplified(model, context.con, self.mesh_triangles)
        return context

    def close(self) -> None:
        """Free the GL context."""
        self._context = None
