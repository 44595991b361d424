"""The SO-101 arm of `lerobot-env-so101`: a cube is carried to a goal, which is drawn as a green disc.

The package's environment shows its policy the goal's coordinates or a picture without the goal; here the goal is to be
seen. Motors have the names and units of LeRobot's `so101_follower`: degrees, and the gripper from 0 (closed) to 100.
"""

import atexit
from typing import Any

import mujoco
import numpy as np
from lerobot_env_so101 import SO101PickPlaceGymEnv
from lerobot_env_so101.pick_place_env import PLACE_SUCCESS_DISTANCE
from lerobot_env_so101.scripted.pick_place import PickPlaceController
from numpy.typing import NDArray

from lerobot_gem.simulation.level_of_detail import upload_simplified

TASK = "put the purple cube on the green disc"
CAMERAS = ("front", "side")
MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# Of the point between the fingertips, as shares of the highest speed; and the opening of the gripper, 0 to 1.
ACTION_NAMES = ("delta.x", "delta.y", "delta.z", "gripper")

# Metres per second of the point between the fingertips: 2.5 cm in each of the package's steps of 0.1 s.
_HIGHEST_SPEED = 0.25
# Of each mesh: software rendering of the arm's 200,000 triangles takes most of the time of a picture.
_MESH_TRIANGLES = 500
# Of the arm's meshes that are drawn; its collision shapes have another.
_VISUAL_GROUP = 2
# Of each camera's scene, more than it holds.
_MOST_SHAPES = 200
_DISC_HEIGHT, _DISC_COLOUR = 0.001, (0.1, 0.7, 0.2, 1.0)
# The package has the camera `front` alone, before which the gripper hides how high it is.
_SIDE_VIEW = {"lookat": (0.22, 0.0, 0.03), "distance": 0.5, "azimuth": 90.0, "elevation": -35.0}


class SO101Scene:
    """The simulated arm with its cube, goal and cameras.

    Args:
        fps: Control steps per second.
        height: Of the pictures, in pixels.
        width: Of the pictures, in pixels.
        quick: Draw without shadows and antialiasing, and meshes with fewer triangles.
    """

    def __init__(self, fps: int, height: int, width: int, quick: bool = True):
        self.height, self.width, self.quick = height, width, quick
        scale = _HIGHEST_SPEED / fps
        self._env = SO101PickPlaceGymEnv(random_block_position=True, action_scale=scale, control_dt=1 / fps)
        self._expert = PickPlaceController(scale)
        self._gl: Any = None

    def reset(self, rng: np.random.Generator) -> None:
        """Draw where the cube and the goal are."""
        self._env.reset(seed=int(rng.integers(2**62)))
        self._expert.reset()

    def step(self, action: NDArray[Any]) -> tuple[bool, bool]:
        """Execute an action.

        Args:
            action: (4,), as in `ACTION_NAMES`; cut off at -1 and 1.

        Returns:
            Whether the cube was put on the goal, and whether the episode is over: solved, or the cube is out of reach.
        """
        _, _, is_over, _, info = self._env.step(np.clip(action, -1, 1))
        return bool(info["succeed"]), bool(is_over)

    def expert_action(self) -> NDArray[np.float32]:
        """(4,) what the package's scripted controller does now; ask once in each step."""
        cube = self._env.data.sensor("block_pos").data
        return self._expert.act(self._env.ik_point_pos, cube, self._env.goal_pos)

    def state(self) -> NDArray[np.float32]:
        """(6,) positions of `MOTORS`."""
        model, data = self._env.model, self._env.data
        angles = np.array([data.qpos[model.joint(motor).qposadr[0]] for motor in MOTORS])
        closed, opened = model.actuator("gripper").ctrlrange
        opening = 100 * (angles[-1] - closed) / (opened - closed)
        return np.array([*np.rad2deg(angles[:-1]), opening], np.float32)

    def draw(self, camera: str, *, depth: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """What a camera of `CAMERAS` sees: (H, W, 3) colours and, if asked for, (H, W) metres along the optical axis."""
        model, data = self._env.model, self._env.data
        gl, context, scene = self._gl = self._gl or self._make_context()
        gl.make_current()
        view = mujoco.MjvCamera()
        if camera == "front":
            view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
        else:
            view.type = mujoco.mjtCamera.mjCAMERA_FREE
            for name, value in _SIDE_VIEW.items():
                setattr(view, name, value)
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL, scene)
        self._add_goal(scene)
        frame = mujoco.MjrRect(0, 0, self.width, self.height)
        mujoco.mjr_render(frame, scene, context)
        colours = np.empty((self.height, self.width, 3), np.uint8)
        buffer = np.empty((self.height, self.width), np.float32) if depth else None
        mujoco.mjr_readPixels(colours, buffer, frame, context)
        metres = None if buffer is None else np.ascontiguousarray(self._metres(buffer)[::-1])
        return np.ascontiguousarray(colours[::-1]), metres

    def close(self) -> None:
        """Free what draws."""
        if self._gl is not None:
            gl, context, _ = self._gl
            context.free()
            gl.free()
            self._gl = None
            atexit.unregister(self.close)
        self._env.close()

    def _make_context(self) -> tuple[Any, Any, Any]:
        model = self._env.model
        model.vis.global_.offwidth, model.vis.global_.offheight = self.width, self.height
        if self.quick:
            model.vis.quality.offsamples = 0
        gl = mujoco.GLContext(self.width, self.height)
        # Now that MuJoCo has registered what ends EGL: what is registered last is called first.
        atexit.register(self.close)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        scene = mujoco.MjvScene(model, _MOST_SHAPES)
        if self.quick:
            scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            upload_simplified(model, context, _MESH_TRIANGLES, _VISUAL_GROUP)
        return gl, context, scene

    def _add_goal(self, scene: Any) -> None:
        x, y, _ = self._env.goal_pos
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_CYLINDER,
            np.array([PLACE_SUCCESS_DISTANCE, _DISC_HEIGHT, 0.0]),
            np.array([x, y, _DISC_HEIGHT]),  # the ground is at 0
            np.eye(3).ravel(),
            np.array(_DISC_COLOUR, np.float32),
        )
        scene.ngeom += 1

    def _metres(self, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
        """Metres from a depth buffer, which is between the near and the far plane."""
        visual, extent = self._env.model.vis.map, self._env.model.stat.extent
        near, far = visual.znear * extent, visual.zfar * extent
        return (near / (1 - buffer * (1 - near / far))).astype(np.float32)
