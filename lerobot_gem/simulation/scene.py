"""One LIBERO task in the simulator: soft resets, metric depth, images only when asked for.

LIBERO's own environment renders both cameras at every control step and at every settling step, with 4x antialiasing,
and rebuilds the model at each reset. A scene here builds the model and its one GL context once; physics, controller
and success test stay LIBERO's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.distractors import definition_with
from lerobot_gem.simulation.libero_setup import require_libero
from lerobot_gem.simulation.rendering import Renderer, flip

# Names that LeRobot's libero env gives to LIBERO's two cameras.
CAMERAS = {"image": "agentview", "image2": "robot0_eye_in_hand"}
ACTION_DIM = 7
STATE_DIM = 8
GRIPPER_OPEN, GRIPPER_CLOSE = -1.0, 1.0
# Fixtures get their place (within a centimetre or so) from numpy's global generator when a model is built.
_FIXTURE_SEED = 0


@dataclass(frozen=True)
class ObjectShape:
    """Collision bounds of an object at rest in the suite's orientation, relative to its body origin, in metres.

    Attributes:
        low: (3,) smallest x, y, z.
        high: (3,) largest x, y, z.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @cached_property
    def radius(self) -> float:
        """Radius of the circle around the body origin that holds the footprint at any yaw."""
        corner = np.maximum(np.abs(self.low[:2]), np.abs(self.high[:2]))
        return float(np.hypot(*corner))

    @property
    def size(self) -> NDArray[np.float64]:
        """(3,) extent along x, y, z."""
        return self.high - self.low


def definition_file(task: Any) -> Path:
    """Where a task of LIBERO's suites is defined (BDDL)."""
    from libero.libero import get_libero_path

    return Path(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator for LIBERO's samplers and give it back as it was."""
    saved = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(saved)


class LiberoScene:
    """The simulator of one LIBERO task.

    Args:
        suite: LIBERO suite, e.g. "libero_object".
        task_id: Task in the suite.
        control_freq: Control steps per second.
        height: Of the images in pixels.
        width: Of the images in pixels.
        multisampling: See `Renderer`.
        mesh_triangles: See `Renderer`.
        distractors: Objects of the suite's other tasks that are added to the scene.

    Attributes:
        distractors: Their names; they are among `objects`.

    Raises:
        LiberoNotReadyError: LIBERO is not set up.
        ValueError: Unknown suite or task, more distractors than there are, or a control frequency that is not positive.
    """

    def __init__(
        self,
        suite: str,
        task_id: int,
        control_freq: int = 20,
        height: int = 128,
        width: int = 128,
        multisampling: bool = False,
        mesh_triangles: int | None = None,
        distractors: int = 0,
    ):
        require_libero()
        from libero.libero import benchmark, get_libero_path
        from libero.libero.envs.env_wrapper import ControlEnv

        suites = benchmark.get_benchmark_dict()
        if suite not in suites:
            raise ValueError(f"Unknown LIBERO suite '{suite}'. Known: {', '.join(sorted(suites))}.")
        tasks = suites[suite]()
        if not 0 <= task_id < tasks.n_tasks:
            raise ValueError(f"{suite} has tasks 0 to {tasks.n_tasks - 1}, but task_id is {task_id}.")
        if control_freq <= 0:
            raise ValueError(f"control_freq={control_freq}: expected control steps per second, more than 0.")
        task = tasks.get_task(task_id)
        self.suite, self.task_id = suite, task_id
        self.task, self.instruction = task.name, task.language
        self.control_freq = control_freq
        self._init_states_file = os.path.join(
            get_libero_path("init_states"), task.problem_folder, task.init_states_file
        )
        with (
            _numpy_seed(_FIXTURE_SEED),
            definition_with(definition_file(task), suite, distractors) as (bddl_file, self.distractors),
        ):
            # No cameras among the observables and no renderer of its own: this class draws.
            self.control = ControlEnv(
                bddl_file_name=str(bddl_file),
                has_offscreen_renderer=False,
                use_camera_obs=False,
                hard_reset=False,
                ignore_done=True,
                control_freq=control_freq,
            )
        self.env = self.control.env
        self._caches_are_old = False
        # How far the fixed camera is turned, degrees, and the ground that objects stand on is raised, metres.
        self.camera_turn, self.ground = 0.0, 0.0
        model = self.env.sim.model._model
        self._fixed_camera = model.camera(CAMERAS["image"]).id
        self._camera_pose = (
            model.cam_pos[self._fixed_camera].copy(),
            model.cam_quat[self._fixed_camera].copy(),
        )
        # Resets restore the robot and leave placing objects to `place` and `set_state`.
        self.env.deterministic_reset = True
        # Made here since making it recomputes positions, which would set the first image apart from all others.
        self.renderer = Renderer(self.env.sim, height, width, multisampling, mesh_triangles)
        # {object: (7,) pose} and {object: shape} after the suite's first placement came to rest, on the suite's own ground.
        self.rest = self._find_rest()

    # -- objects ---------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> list[str]:
        """Names of the movable objects."""
        return list(self.env.objects_dict)

    @property
    def goal(self) -> list[list[str]]:
        """The goal's predicates as LIBERO parses them, e.g. [["in", "milk_1", "basket_1_contain_region"]]."""
        return self.env.parsed_problem["goal_state"]

    def pose(self, name: str) -> NDArray[np.float64]:
        """(7,) joint position of a movable object: x, y, z, quaternion w, x, y, z."""
        return np.array(self.env.sim.data.get_joint_qpos(self.env.objects_dict[name].joints[-1]))

    def position(self, name: str) -> NDArray[np.float64]:
        """(3,) position of an object's or fixture's body."""
        return np.array(self.env.sim.data.body_xpos[self.env.obj_body_id[name]])

    def _collision_bounds(self, name: str) -> ObjectShape:
        model, data = self.env.sim.model._model, self.env.sim.data._data
        body = self.env.obj_body_id[name]
        corners = []
        for geom in range(model.ngeom):
            if model.body_rootid[model.geom_bodyid[geom]] != body or not model.geom_contype[geom]:
                continue
            # The model's own bounding box of the geom, in the geom's frame: centre and half sizes.
            centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
            signs = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 3)
            rotation = data.geom_xmat[geom].reshape(3, 3)
            corners.append((centre + signs * half) @ rotation.T + data.geom_xpos[geom] - data.xpos[body])
        points = np.concatenate(corners)
        return ObjectShape(points.min(0), points.max(0))

    def _find_rest(self) -> tuple[dict[str, NDArray[np.float64]], dict[str, ObjectShape]]:
        # The suite knows no state of distractors: they start where LIBERO's sampler put them.
        starts = {name: self.pose(name) for name in self.distractors}
        self.reset()
        self.set_state(self._with_distractors(self.init_states[0]))
        if starts:
            self.place(starts)
        self.settle(2.0)
        poses = {name: self.pose(name) for name in self.objects}
        return poses, {name: self._collision_bounds(name) for name in self.objects}

    # -- surroundings ----------------------------------------------------------------------------------------------

    def turn_camera(self, degrees: float) -> None:
        """Turn the fixed camera about the vertical through the middle of the workspace.

        Args:
            degrees: From where LIBERO has it, anticlockwise as seen from above.
        """
        import mujoco

        if degrees == self.camera_turn:
            return
        turn, quaternion = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), np.deg2rad(degrees))
        position, orientation = self._camera_pose
        middle = np.asarray(self.env.workspace_offset) * [1, 1, 0]
        mujoco.mju_mulQuat(quaternion, turn, orientation)
        model = self.env.sim.model._model
        model.cam_pos[self._fixed_camera] = middle + rotation(turn) @ (position - middle)
        model.cam_quat[self._fixed_camera] = quaternion
        self.camera_turn = degrees
        self._state_changed()

    def raise_ground(self, height: float) -> None:
        """Raise the ground that objects stand on; they are to be placed again afterwards.

        Args:
            height: Above the suite's own, metres.

        Raises:
            ValueError: The objects stand on a table, whose fixtures would stay where they are.
        """
        if height == self.ground:
            return
        if self.env.workspace_name != "floor":
            raise ValueError(
                f"The ground can be raised where objects stand on the floor, as in libero_object, not in {self.suite}."
            )
        model = self.env.sim.model._model
        # LIBERO's floor is at height 0.
        model.body_pos[model.body("floor").id, 2] = height
        self.ground = height
        self._state_changed()

    # -- state -----------------------------------------------------------------------------------------------------

    @cached_property
    def init_states(self) -> NDArray[np.float64]:
        """(N, S) the suite's own initial states: time, joint positions and velocities."""
        import torch

        # A trusted file of the installed package: a pickled numpy array.
        return np.asarray(torch.load(self._init_states_file, weights_only=False))  # nosec B614

    def _with_distractors(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """A state of the suite with zeros for the distractors, which follow the suite's own objects."""
        added = len(self.distractors)
        positions = 1 + self.env.sim.model.nq - 7 * added
        return np.concatenate(
            [state[:positions], np.zeros(7 * added), state[positions:], np.zeros(6 * added)]
        )

    def reset(self) -> None:
        """Robot to its start pose, controllers reset, nothing rendered. Objects are then placed by the caller."""
        self.control.reset()
        # What robosuite restores in hard resets only.
        robot = self.env.robots[0]
        self.env.sim.data.qpos[robot._ref_gripper_joint_pos_indexes] = robot.gripper.init_qpos
        robot.gripper.current_action = np.zeros(robot.gripper.dof)
        self.env.sim.forward()

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Load a flat simulator state (S,) as in `init_states`."""
        self.control.set_state(state)
        self._state_changed()

    def show(self, state: NDArray[np.float64]) -> None:
        """Load a flat simulator state (S,) to be drawn, with what LIBERO lights up in it: a stove that is on."""
        self.set_state(state)
        self.control._post_process()

    def place(self, poses: dict[str, NDArray[np.float64]]) -> None:
        """Put objects at joint positions {name: (7,)}, at rest."""
        data = self.env.sim.data
        for name, pose in poses.items():
            position, velocity = self._joints[name]
            data.qpos[position : position + 7] = pose
            data.qvel[velocity : velocity + 6] = 0
        self._state_changed()

    @cached_property
    def _joints(self) -> dict[str, tuple[int, int]]:
        """Where the position and the velocity of each object begin in the simulator's state."""
        model = self.env.sim.model._model
        joints = {name: model.joint(self.env.objects_dict[name].joints[-1]) for name in self.objects}
        return {name: (int(joint.qposadr[0]), int(joint.dofadr[0])) for name, joint in joints.items()}

    def set_arm(self, joints: NDArray[np.float64], fingers: NDArray[np.float64]) -> None:
        """Teleport the arm to joint angles (7,) and finger positions (2,), at rest; the controllers hold there."""
        robot, data = self.env.robots[0], self.env.sim.data
        data.qpos[robot._ref_joint_pos_indexes] = joints
        data.qvel[robot._ref_joint_vel_indexes] = 0
        data.qpos[robot._ref_gripper_joint_pos_indexes] = fingers
        data.qvel[robot._ref_gripper_joint_vel_indexes] = 0
        # The gripper ramps its target between open (1, -1) and closed (-1, 1) and remembers where it is.
        robot.gripper.current_action = np.clip(fingers * 50 - np.array([1.0, -1.0]), -1.0, 1.0)
        self._state_changed()

    def tighten_grip(self) -> None:
        """Let the gripper pull at full force at once, as at the end of its ramp."""
        self.env.robots[0].gripper.current_action = np.array([-1.0, 1.0])

    def _state_changed(self) -> None:
        self.env.sim.forward()
        self._caches_are_old = True

    def _update_caches(self) -> None:
        # The controller caches what it read from the simulator and pulls towards its last goal.
        controller = self.env.robots[0].controller
        controller.update(force=True)
        controller.reset_goal()
        self.control._post_process()
        self.control._update_observables(force=True)
        self._caches_are_old = False

    def settle(self, seconds: float) -> None:
        """Let things come to rest with the robot holding still and its gripper open."""
        action = np.zeros(ACTION_DIM)
        action[-1] = GRIPPER_OPEN
        for _ in range(max(1, round(seconds * self.control_freq))):
            self.step(action)

    def step(self, action: NDArray[np.floating]) -> bool:
        """One control step with an action (7,) in [-1, 1]; returns LIBERO's own success test."""
        if self._caches_are_old:  # which images do without
            self._update_caches()
        self.control.step(action)
        return self.success

    @property
    def success(self) -> bool:
        return bool(self.control.check_success())

    # -- observation -----------------------------------------------------------------------------------------------

    @property
    def eef_position(self) -> NDArray[np.float64]:
        """(3,) point between the finger tips, in the world."""
        return np.array(self.env.sim.data.site_xpos[self.env.robots[0].eef_site_id])

    @property
    def eef_rotation(self) -> NDArray[np.float64]:
        """(3, 3) orientation of the hand in the world."""
        robot = self.env.robots[0]
        body = self.env.sim.model.body_name2id(robot.robot_model.eef_name)
        return np.array(self.env.sim.data.body_xmat[body]).reshape(3, 3)

    @property
    def fingers(self) -> NDArray[np.float64]:
        """(2,) finger joint positions in metres: about +-0.04 open, 0 closed."""
        robot = self.env.robots[0]
        return np.array(self.env.sim.data.qpos[robot._ref_gripper_joint_pos_indexes])

    def robot_state(self) -> NDArray[np.float32]:
        """(8,) as `LiberoProcessorStep` builds it: eef position, axis-angle, finger positions."""
        from robosuite.utils.transform_utils import convert_quat, quat2axisangle

        # Not scipy's rotation vector, which takes the shorter way round: LeRobot's angle reaches from 0 to 2 pi.
        quaternion = self.env.sim.data.get_body_xquat(self.env.robots[0].robot_model.eef_name)
        axis_angle = quat2axisangle(convert_quat(quaternion, to="xyzw"))
        return np.concatenate([self.eef_position, axis_angle, self.fingers]).astype(np.float32)

    def observation(self, depth: bool = False) -> dict[str, NDArray[Any]]:
        """What a LeRobot policy sees here, keyed as in LeRobot's libero datasets.

        Returns:
            Observation.images.image, .image2: (H, W, 3) uint8; with `depth` also .image_depth, .image2_depth:
            (H, W, 1) float32 metres; observation.state: (8,) float32.
        """
        result: dict[str, NDArray[Any]] = {}
        for name, camera in CAMERAS.items():
            frame = self.renderer.render(camera, depth)
            result[f"observation.images.{name}"] = flip(frame.rgb)
            if frame.depth is not None:
                result[f"observation.images.{name}_depth"] = flip(frame.depth)[..., None]
        result["observation.state"] = self.robot_state()
        return result

    def close(self) -> None:
        """Free the simulator and its GL context."""
        self.renderer.close()
        self.control.close()


def rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) of a quaternion (4,) w, x, y, z."""
    import mujoco

    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
