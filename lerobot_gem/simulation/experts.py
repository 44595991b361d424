"""Scripted experts: reactive functions of the simulator's state, acting with LIBERO's OSC delta actions.

An expert holds no clock and no phase: the same state always gives the same action, which is what makes its
demonstrations learnable from pictures and lets it label states that it did not visit itself.
"""

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.placements import PALM_CLEARANCE, target_and_container
from lerobot_gem.simulation.scene import ACTION_DIM, GRIPPER_CLOSE, GRIPPER_OPEN, LiberoScene

# Full scale of an action: OSC_POSE output_max of robosuite 1.4 (metres, radians per control step).
POSITION_SCALE, ROTATION_SCALE = 0.05, 0.5
# The fingers can't go lower without touching the ground, metres above it.
LOWEST_GRASP = 0.014


def _towards(offset: NDArray[np.float64], full_speed: bool = False) -> NDArray[np.float64]:
    """(3,) action for an offset in metres: never above 1, its direction kept; at `full_speed` never below 1."""
    action = offset / POSITION_SCALE
    largest = float(np.abs(action).max())
    return action / max(largest, 1e-9 if full_speed else 1.0)


def _yaw(rotation: NDArray[np.float64]) -> float:
    """Heading of the first axis of a rotation (3, 3)."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def _half_turn(angle: float) -> float:
    """The same line, turned by at most a quarter: a gripper is symmetric."""
    return (angle + np.pi / 2) % np.pi - np.pi / 2


class PickAndPlaceExpert:
    """Picks an object up from above and drops it into a container: the ten tasks of `libero_object`.

    Not held: straight to a point above the object, down a funnel once aligned, close. Held (both fingers touch it):
    up, straight to above the container's rim, across, open.

    Args:
        scene: the task; its goal must be one `in` or `on` predicate.
    """

    approach_height = 0.10  # above the grasp point while not yet aligned, m
    aligned = 0.012  # distance to the grasp point at which the fingers close, m
    funnel = 3.0  # metres of height per metre of misalignment on the way down
    rim_clearance = 0.03  # of the held object's lowest point above the container's rim, m
    entry_radius = 0.17  # the object must be above the rim before it comes this near to the container, m
    release_radius = 0.025  # m
    yaw_tolerance = 0.06  # rad

    def __init__(self, scene: LiberoScene):
        self.scene = scene
        self.target, self.container = target_and_container(scene)
        poses, shapes = scene.rest
        self._rest, self.shape = poses[self.target], shapes[self.target]
        self.rim = poses[self.container][2] + shapes[self.container].high[2]
        x, y, _ = self.shape.size
        # Boxes are gripped across their short side, round things at any yaw.
        self.elongated = abs(x - y) > 0.015
        self._body = scene.env.obj_body_id[self.target]
        self._rest_yaw = _yaw(self._rest_rotation())

    def _rest_rotation(self) -> NDArray[np.float64]:
        w, x, y, z = self._rest[3:]
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )

    def _object_yaw(self) -> float:
        """Turn of the object away from its rest pose."""
        rotation = self.scene.env.sim.data.body_xmat[self._body].reshape(3, 3)
        relative = rotation @ self._rest_rotation().T
        return _yaw(relative)

    def grasp_point(self) -> NDArray[np.float64]:
        """(3,) where the point between the finger tips should be."""
        yaw = self._object_yaw()
        centre = (self.shape.low[:2] + self.shape.high[:2]) / 2
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        position = self.scene.position(self.target)
        top = position[2] + self.shape.high[2]
        height = max(position[2], top - PALM_CLEARANCE, LOWEST_GRASP)
        return np.append(position[:2] + turn @ centre, height)

    def held(self) -> bool:
        """Both fingers touch the object."""
        env = self.scene.env
        return bool(env._check_grasp(env.robots[0].gripper, env.objects_dict[self.target]))

    def action(self) -> NDArray[np.float32]:
        """(7,) the action for the current state, in [-1, 1]."""
        if self.held():
            move, gripper = self._carry()
        elif self._dropped_in():
            move, gripper = np.zeros(3), GRIPPER_OPEN
        else:
            move, gripper = self._reach()
        action = np.zeros(ACTION_DIM)
        action[:3] = move
        action[5] = self._turn()
        action[6] = gripper
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _dropped_in(self) -> bool:
        offset = self.scene.position(self.target)[:2] - self.scene.position(self.container)[:2]
        return bool(np.abs(offset).max() < 0.06)

    def _reach(self) -> tuple[NDArray[np.float64], float]:
        eef, grasp = self.scene.eef_position, self.grasp_point()
        offset = grasp - eef
        lateral = float(np.hypot(*offset[:2]))
        height = float(np.clip(self.funnel * (lateral - self.aligned), 0.0, self.approach_height))
        offset[2] = grasp[2] + height - eef[2]
        if lateral < self.aligned and abs(offset[2]) < self.aligned and abs(self._yaw_error()) < 0.2:
            return _towards(offset), GRIPPER_CLOSE
        # Below the approach height and beside the object: up before across.
        offset[:2] *= np.clip(1.5 - offset[2] / 0.05, 0.0, 1.0)
        return _towards(offset), GRIPPER_OPEN

    def _carry(self) -> tuple[NDArray[np.float64], float]:
        held = self.scene.position(self.target)
        goal = self.scene.position(self.container)
        bottom = held[2] + self.shape.low[2]
        offset = np.append(goal[:2] - held[:2], self.rim + self.rim_clearance - bottom)
        lateral = float(np.hypot(*offset[:2]))
        if lateral < self.release_radius:
            return _towards(offset * [1, 1, 0]), GRIPPER_OPEN
        if lateral <= self.entry_radius:
            # Across the rim only at height.
            offset[:2] *= np.clip(1.5 - offset[2] / 0.04, 0.0, 1.0)
            return _towards(offset), GRIPPER_CLOSE
        offset[:2] *= 1.0 - self.entry_radius / lateral + 0.05
        offset[:2] *= np.clip((bottom - 0.005) / 0.02, 0.0, 1.0)
        return _towards(offset, full_speed=True), GRIPPER_CLOSE

    def _yaw_error(self) -> float:
        if not self.elongated or self.held():
            return 0.0
        # At the robot's start the fingers open along y, across a box whose long side lies along x.
        x, y, _ = self.shape.size
        wanted = self._object_yaw() + (0.0 if x > y else np.pi / 2)
        return _half_turn(wanted - _yaw(self.scene.eef_rotation))

    def _turn(self) -> float:
        error = self._yaw_error()
        return 0.0 if abs(error) < self.yaw_tolerance else float(np.clip(error / ROTATION_SCALE, -1, 1))


def make_expert(scene: LiberoScene) -> PickAndPlaceExpert:
    """The scripted expert of a scene's task.

    Raises:
        ValueError: there is none for this suite.
    """
    if scene.suite != "libero_object":
        raise ValueError(f"There is no scripted expert for {scene.suite}; there is for libero_object.")
    return PickAndPlaceExpert(scene)
