"""Random arm poses, reached by inverse kinematics instead of motion, for samples that cost one image each."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.placements import WIDE_RULES, turned
from lerobot_gem.simulation.scene import ACTION_DIM, CAMERAS, GRIPPER_CLOSE, LiberoScene
from lerobot_gem.simulation.scripted_policies import DropIntoContainer, ScriptedPickAndPlace

_OPEN_FINGERS = np.array([0.0395, -0.0395])
_TRIES = 50
_NEWTON_STEPS, _TOLERANCE, _DAMPING = 30, 1e-3, 0.05
# Bisections of the fingers' opening: to less than a millimetre.
_FINGER_STEPS = 6
# Heights of the point between the finger tips over the ground, metres.
_HEIGHTS = (0.03, 0.30)
# Share of free arm poses that are drawn around the grasp point, where an approach needs to be precise.
_NEAR_TARGET = 0.5


class ArmPoses:
    """Draws arm poses in a scene: gripper down and open somewhere over the workspace, or holding the target.

    Args:
        scene: A scene whose suite has wide placements.
        policy: The scripted policy of its task; tells grasp point, target and container.

    Raises:
        ValueError: The task is not to put something into a container.
    """

    def __init__(self, scene: LiberoScene, policy: ScriptedPickAndPlace):
        if not isinstance(policy, DropIntoContainer):
            raise ValueError(f"Random arm poses are made for libero_object, not for {scene.suite}.")
        self.scene, self.policy = scene, policy
        robot = scene.env.robots[0]
        self._site = robot.eef_site_id
        self._qpos = np.array(robot._ref_joint_pos_indexes)
        self._dofs = np.array(robot._ref_joint_vel_indexes)
        self._home = np.array(robot.init_qpos)
        model = scene.env.sim.model._model
        at_home = mujoco.MjData(model)  # the scene itself stays as it is
        at_home.qpos[self._qpos] = self._home
        mujoco.mj_kinematics(model, at_home)
        self._down = at_home.site_xmat[self._site].reshape(3, 3).copy()
        self._robot = int(model.body_rootid[model.body(robot.robot_model.root_body).id])
        self._fingers = [model.body(f"gripper0_{side}finger").id for side in ("left", "right")]
        self._target = scene.env.obj_body_id[policy.target]
        self._camera = model.camera(CAMERAS["image2"]).id
        self._limits = model.jnt_range[[model.dof_jntid[d] for d in self._dofs]]

    def place_at_start(self) -> bool:
        """Put the arm, gripper open, where episodes start; False when something is in its way."""
        self.scene.set_arm(self._home, _OPEN_FINGERS)
        return not self._touching()

    def place_free(self, rng: np.random.Generator) -> bool:
        """Put the open gripper at a random place, touching nothing; False when none was found."""
        grasp = self.policy.grasp_point()
        for _ in range(_TRIES):
            if rng.random() < _NEAR_TARGET:
                point = grasp + np.append(rng.normal(0, 0.04, 2), rng.uniform(-0.01, 0.12))
            else:
                point = self._over_workspace(rng)
            if self._behind_container(point):
                continue
            if self._reach(point, rng.normal(0, 0.1)) and not self._touching():
                return True
        return False

    def _behind_container(self, point: NDArray[np.float64]) -> bool:
        """Beside or inside the container and below its rim: the straight way to the target leads through its wall."""
        offset = point[:2] - self.scene.position(self.policy.container)[:2]
        return bool(np.hypot(*offset) < 0.2 and point[2] < self.policy.rim + 0.03)

    def place_holding(self, rng: np.random.Generator, simulate: bool = True) -> bool:
        """Put the target between the closed fingers at a random place; False when none was found.

        Args:
            rng: Draws the place.
            simulate: Let the gripper close on the target, at full force; else put the fingers where they touch it,
                which takes a twentieth of the time.
        """
        scene, policy = self.scene, self.policy
        for _ in range(_TRIES):
            yaw = rng.uniform(-0.5, 0.5)
            at_rest = turned(scene.rest[0][policy.target], yaw)
            at_rest[2] += scene.ground
            scene.place({policy.target: at_rest})
            to_grasp = policy.grasp_point() - scene.position(policy.target)
            point = self._over_workspace(rng)
            if rng.random() < 0.3:  # around the place where it is let go
                point[:2] = scene.position(policy.container)[:2] + rng.normal(0, 0.06, 2)
                point[2] = scene.ground + rng.uniform(0.2, _HEIGHTS[1])
            pose = scene.pose(policy.target)
            pose[:3] = point - to_grasp
            if pose[2] + policy.shape.low[2] < scene.ground or not self._reach(
                point, yaw if policy.elongated else 0.0
            ):
                continue
            scene.place({policy.target: pose})
            if self._touching(holding=True):
                continue
            if simulate:
                self._close_fingers()
            else:
                self._put_fingers()
            if policy.held() and not self._touching(holding=True):
                return True
        return False

    def _over_workspace(self, rng: np.random.Generator) -> NDArray[np.float64]:
        rule = WIDE_RULES[self.scene.suite]
        low = np.minimum([rule.objects.x[0], rule.objects.y[0]], [rule.container.x[0], rule.container.y[0]])
        high = np.maximum([rule.objects.x[1], rule.objects.y[1]], [rule.container.x[1], rule.container.y[1]])
        return np.append(rng.uniform(low, high), self.scene.ground + rng.uniform(*_HEIGHTS))

    def _reach(self, point: NDArray[np.float64], yaw: float) -> bool:
        """Bring the point between the finger tips to `point`, gripper down, turned by `yaw`; damped least squares."""
        model, data = self.scene.env.sim.model._model, self.scene.env.sim.data._data
        c, s = np.cos(yaw), np.sin(yaw)
        wanted = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ self._down
        joints = self._home.copy()
        jacobian = np.zeros((6, model.nv))
        for _ in range(_NEWTON_STEPS):
            data.qpos[self._qpos] = joints
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            here = data.site_xmat[self._site].reshape(3, 3)
            turn = np.cross(here.T, wanted.T).sum(0) / 2
            error = np.concatenate([point - data.site_xpos[self._site], turn])
            if np.abs(error).max() < _TOLERANCE:
                break
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
            j = jacobian[:, self._dofs]
            step = j.T @ np.linalg.solve(j @ j.T + _DAMPING**2 * np.eye(6), error)
            joints = joints + np.clip(step, -0.3, 0.3)
        else:
            return False
        if np.any(joints < self._limits[:, 0]) or np.any(joints > self._limits[:, 1]):
            return False
        self.scene.set_arm(joints, _OPEN_FINGERS)
        return True

    def _touching(self, holding: bool = False) -> bool:
        """Whether the robot touches anything but itself; with `holding`, it or the target anything but each other.

        The wrist camera is a part of the robot, although MuJoCo gives it no shape: within an object it would see through it.
        """
        model, data = self.scene.env.sim.model._model, self.scene.env.sim.data._data
        roots = model.body_rootid[model.geom_bodyid[data.contact.geom[: data.ncon]]]
        ours = roots == self._robot
        if holding:
            ours |= roots == self._target
        return bool((ours[:, 0] != ours[:, 1]).any()) or self._camera_is_in_an_object()

    def _camera_is_in_an_object(self) -> bool:
        scene = self.scene
        for name in scene.objects:
            offset = scene.env.sim.data.cam_xpos[self._camera] - scene.position(name)
            shape = scene.rest[1][name]
            # Containers are open above, and the arm keeps out of them.
            is_inside = np.hypot(*offset[:2]) < shape.radius and shape.low[2] < offset[2] < shape.high[2]
            if is_inside and name != self.policy.container:
                return True
        return False

    def _close_fingers(self) -> None:
        """Close on the target without letting it fall meanwhile."""
        model = self.scene.env.sim.model._model
        gravity = model.opt.gravity.copy()
        model.opt.gravity[:] = 0
        close = np.zeros(ACTION_DIM)
        close[-1] = GRIPPER_CLOSE
        self.scene.tighten_grip()
        for _ in range(max(1, round(0.2 * self.scene.control_freq))):
            self.scene.step(close)
        model.opt.gravity[:] = gravity

    def _put_fingers(self) -> None:
        """Put the fingers as far apart as they can be while both touch the target."""
        model, data = self.scene.env.sim.model._model, self.scene.env.sim.data._data
        joints = data.qpos[self._qpos].copy()
        fingers = self.scene.env.robots[0]._ref_gripper_joint_pos_indexes
        closed, opened = np.zeros(2), _OPEN_FINGERS
        for _ in range(_FINGER_STEPS):
            middle = (closed + opened) / 2
            data.qpos[fingers] = middle
            mujoco.mj_forward(model, data)
            bodies = model.geom_bodyid[data.contact.geom[: data.ncon]]
            touching = bodies[(model.body_rootid[bodies] == self._target).any(1)]
            closed, opened = (middle, opened) if np.isin(self._fingers, touching).all() else (closed, middle)
        self.scene.set_arm(joints, closed)
