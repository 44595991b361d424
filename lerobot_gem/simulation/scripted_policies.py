"""Scripted policies: reactive functions of the simulator's state, acting with LIBERO's OSC delta actions.

A scripted policy holds no clock and no phase: the same state always gives the same action, which is what makes its
demonstrations learnable from images and lets it label states that it did not visit itself.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.placements import PALM_CLEARANCE, target_and_container
from lerobot_gem.simulation.scene import ACTION_DIM, GRIPPER_CLOSE, GRIPPER_OPEN, LiberoScene, rotation

# Full scale of an action: OSC_POSE output_max of robosuite 1.4 (metres, radians per control step).
POSITION_SCALE, ROTATION_SCALE = 0.05, 0.5
# The fingers can't go lower without touching the ground, metres above it.
LOWEST_GRASP = 0.014


def _towards(offset: NDArray[np.float64], full_speed: bool = False) -> NDArray[np.float64]:
    """(3,) action for an offset in metres: never above 1, its direction kept; at `full_speed` never below 1."""
    action = offset / POSITION_SCALE
    largest = float(np.abs(action).max())
    return action / max(largest, 1e-9 if full_speed else 1.0)


def _ramp(value: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, linear between."""
    return float(np.clip((value - zero) / (one - zero), 0.0, 1.0))


def _yaw(rotation: NDArray[np.float64]) -> float:
    """Heading of the first axis of a rotation (3, 3)."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def _half_turn(angle: float) -> float:
    """The same line, turned by at most a quarter: a gripper is symmetric."""
    return (angle + np.pi / 2) % np.pi - np.pi / 2


class ScriptedPickAndPlace(ABC):
    """Picks an object up from above and takes it to where the goal wants it.

    Not held: straight to a point above the grasp point, down a funnel once aligned, close. Held (both fingers touch
    it): `carry`. Let go over the goal: wait.

    Args:
        scene: The task; its goal must be one `in` or `on` predicate.
        target: Object to pick up instead of the goal's.
    """

    approach_height = 0.10  # above the grasp point while not yet aligned, m
    aligned = 0.012  # distance to the grasp point at which the fingers close, m
    funnel = 3.0  # metres of height per metre of misalignment on the way down
    yaw_tolerance = 0.06  # rad
    delivered_radius = 0.06  # along x and y around the goal; let go there, the object only has to fall, m

    def __init__(self, scene: LiberoScene, target: str | None = None):
        self.scene = scene
        own, self.container = target_and_container(scene)
        self.target = target or own
        poses, shapes = scene.rest
        self.rest, self.shape = poses[self.target], shapes[self.target]
        self.container_rest, self.container_shape = poses[self.container], shapes[self.container]

    @abstractmethod
    def grasp_point(self) -> NDArray[np.float64]:
        """(3,) where the point between the finger tips should be."""

    @abstractmethod
    def grasp_yaw(self) -> float | None:
        """Turn of the hand from its start, at which the fingers open along y; None when any will do."""

    @abstractmethod
    def carry(self) -> tuple[NDArray[np.float64], float]:
        """Motion (3,) and gripper while the object is held."""

    def held(self) -> bool:
        """Both fingers touch the object."""
        env = self.scene.env
        return bool(env._check_grasp(env.robots[0].gripper, env.objects_dict[self.target]))

    def action(self) -> NDArray[np.float32]:
        """(7,) the action for the current state, in [-1, 1]."""
        turn = 0.0
        if self.held():
            move, gripper = self.carry()
        elif self.delivered():
            move, gripper = np.zeros(3), GRIPPER_OPEN
        else:
            error = self._yaw_error()
            turn = 0.0 if abs(error) < self.yaw_tolerance else error / ROTATION_SCALE
            move, gripper = self._reach(error)
        action = np.array([*move, 0.0, 0.0, turn, gripper])
        assert action.shape == (ACTION_DIM,)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def delivered(self) -> bool:
        """The object is over its goal, along x and y."""
        offset = self.scene.position(self.target) - self.scene.position(self.container)
        return bool(np.abs(offset[:2]).max() < self.delivered_radius)

    def _yaw_error(self) -> float:
        wanted = self.grasp_yaw()
        return 0.0 if wanted is None else _half_turn(wanted - _yaw(self.scene.eef_rotation))

    def _reach(self, yaw_error: float) -> tuple[NDArray[np.float64], float]:
        grasp = self.grasp_point()
        offset = grasp - self.scene.eef_position
        lateral = float(np.hypot(*offset[:2]))
        misalignment = max(0.0, lateral - self.aligned) + 0.05 * max(0.0, abs(yaw_error) - self.yaw_tolerance)
        offset[2] += min(self.funnel * misalignment, self.approach_height)
        if lateral < self.aligned and abs(offset[2]) < self.aligned and abs(yaw_error) < 0.2:
            return _towards(offset), GRIPPER_CLOSE
        # Below the approach height and beside the object: up before across.
        offset[:2] *= _ramp(offset[2], 0.075, 0.025)
        return _towards(offset), GRIPPER_OPEN


class DropIntoContainer(ScriptedPickAndPlace):
    """The ten tasks of `libero_object`: grip an object around its middle, carry it over the basket's rim, let go."""

    rim_clearance = 0.03  # of the held object's lowest point above the rim, m
    entry_radius = 0.17  # the object must be above the rim before it comes this near to the container, m
    release_radius = 0.025  # m
    # Of the grip along a box, tried when the hand would hit a neighbour, m.
    shifts = (0.0, -0.022, 0.022)
    hand_length, hand_width = 0.21, 0.066  # of the Panda hand, m

    def __init__(self, scene: LiberoScene, target: str | None = None):
        super().__init__(scene, target)
        self._others = [name for name in scene.objects if name not in (self.target, self.container)]
        x, y, _ = self.shape.size
        # Boxes are gripped across their short side, round things at any yaw.
        self.elongated = abs(x - y) > 0.015
        self._across = 0.0 if x > y else np.pi / 2
        self._body = scene.env.obj_body_id[self.target]
        self._rest_rotation = rotation(self.rest[3:])

    @property
    def rim(self) -> float:
        """Height of the container's rim, metres."""
        return float(self.container_rest[2] + self.container_shape.high[2] + self.scene.ground)

    def _object_yaw(self) -> float:
        """Turn of the object away from its rest pose."""
        rotation = self.scene.env.sim.data.body_xmat[self._body].reshape(3, 3)
        return _yaw(rotation @ self._rest_rotation.T)

    def grasp_point(self) -> NDArray[np.float64]:
        yaw = self._object_yaw()
        centre = (self.shape.low[:2] + self.shape.high[:2]) / 2
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        position = self.scene.position(self.target)
        lowest = LOWEST_GRASP + self.scene.ground
        height = max(position[2], position[2] + self.shape.high[2] - PALM_CLEARANCE, lowest)
        middle = position[:2] + turn @ centre
        if self.elongated:
            along = np.array([np.cos(yaw + self._across), np.sin(yaw + self._across)])
            middle = max(
                (middle + shift * along for shift in self.shifts), key=lambda m: self._room(m, along, height)
            )
        return np.append(middle, height)

    def _room(self, point: NDArray[np.float64], along: NDArray[np.float64], height: float) -> float:
        """Metres, at most 0, between the hand, gripping a box across `along`, and the nearest object as high as its palm.

        The hand is a bar along the fingers' axis.
        """
        fingers = np.array([-along[1], along[0]])
        room = 0.0
        for name in self._others:
            shape, other = self.scene.rest[1][name], self.scene.position(name)
            if other[2] + shape.high[2] < height + PALM_CLEARANCE:
                continue
            offset = other[:2] - point
            nearest = np.clip(offset @ fingers, -self.hand_length / 2, self.hand_length / 2) * fingers
            gap = float(np.hypot(*(offset - nearest))) - self.hand_width / 2 - shape.size[:2].max() / 2
            room = min(room, gap)
        return room

    def grasp_yaw(self) -> float | None:
        return self._object_yaw() + self._across if self.elongated else None

    def carry(self) -> tuple[NDArray[np.float64], float]:
        held = self.scene.position(self.target)
        bottom = held[2] + self.shape.low[2]
        goal = self.scene.position(self.container)
        offset = np.append(goal[:2] - held[:2], self.rim + self.rim_clearance - bottom)
        lateral = float(np.hypot(*offset[:2]))
        if lateral < self.release_radius:
            return _towards(offset * [1, 1, 0]), GRIPPER_OPEN
        if lateral <= self.entry_radius:
            # Across the rim only at height.
            offset[:2] *= _ramp(offset[2], 0.06, 0.02)
            return _towards(offset), GRIPPER_CLOSE
        # To the edge of the entry circle, so that height is reached there; off the ground before across.
        offset[:2] *= (1.05 - self.entry_radius / lateral) * _ramp(bottom - self.scene.ground, 0.005, 0.025)
        return _towards(offset, full_speed=True), GRIPPER_CLOSE


class PlaceOnPlate(ScriptedPickAndPlace):
    """The ten tasks of `libero_spatial`: grip a bowl at its rim, lift it clear, carry it across, set it down."""

    grip_depth = 0.012  # of the point between the finger tips below the rim, m
    inset = 0.004  # of the grip from the bowl's widest point, m
    drawer_inset = 0.016  # the outer finger has to fit between bowl and drawer, m
    finger_reach = 0.05  # of the outer finger beyond the wall, m
    finger_room = 0.012  # that the outer finger needs, m
    travel_height = 0.07  # of the bowl's foot above the table, clears ramekin and bowls, m
    lift = 0.085  # out of a drawer or off something raised, m
    release_height = 0.012  # of the bowl's foot above its place on the plate, m
    release_radius = 0.02  # m
    delivered_radius = 0.03

    def __init__(self, scene: LiberoScene, target: str | None = None):
        super().__init__(scene, target)
        self.radius = float(self.shape.size[:2].max()) / 2
        self.table = self.container_rest[2] + self.container_shape.low[2]
        self.travel = max(self.table + self.travel_height, self.rest[2] + self.lift * self._raised())
        self._drawer = self._drawer_axis()
        # What lies flatter than the finger tips come down is in nobody's way.
        lowest = self.rest[2] + self.shape.high[2] - self.grip_depth - 0.015
        poses, shapes = scene.rest
        self._others = [
            n for n in scene.objects if n != self.target and poses[n][2] + shapes[n].high[2] > lowest
        ]

    def _raised(self) -> bool:
        return bool(self.rest[2] > self.table + 0.03)

    def _drawer_axis(self) -> NDArray[np.float64] | None:
        """(2,) along the longer side of the drawer that the bowl starts in, None when it starts in none."""
        scene = self.scene
        start = next(s for s in scene.env.parsed_problem["initial_state"] if s[1] == self.target)
        if start[0] != "in":
            return None
        fixture = scene.env.parsed_problem["regions"][start[2]]["target"]
        rotation = scene.env.sim.data.body_xmat[scene.env.obj_body_id[fixture]].reshape(3, 3)
        return rotation[:2, 0] / np.hypot(*rotation[:2, 0])

    def _side(self) -> NDArray[np.float64]:
        """(2,) from the bowl's centre to where its rim is gripped.

        It is where the outer finger has room, and on the near side of the plate later, since the arm hardly reaches beyond it.
        """
        centre = self.scene.position(self.target)[:2]
        if self._drawer is not None:
            return -self._drawer * np.sign(self._drawer @ centre)
        if centre[1] < -0.03:  # the cabinet's and the stove's side of the table
            return np.array([-1.0, 0.0] if centre[0] > -0.25 else [0.0, 1.0])
        inward = np.array([0.0, -1.0])
        reach = self.radius + self.finger_reach
        room, other = self._room(centre + inward * reach), self._room(centre - inward * reach)
        return -inward if room < self.finger_room and other > room else inward

    def grasp_point(self) -> NDArray[np.float64]:
        centre = self.scene.position(self.target)
        inset = self.inset if self._drawer is None else self.drawer_inset
        height = centre[2] + self.shape.high[2] - self.grip_depth
        return np.append(centre[:2] + self._side() * (self.radius - inset), height)

    def _room(self, point: NDArray[np.float64]) -> float:
        """Distance from a point beside the bowl to the nearest other object, metres."""
        shapes = self.scene.rest[1]
        distances = [
            float(np.hypot(*(self.scene.position(name)[:2] - point)) - shapes[name].size[:2].max() / 2)
            for name in self._others
        ]
        return min(distances, default=np.inf)

    def grasp_yaw(self) -> float:
        side = self._side()
        return float(np.arctan2(side[1], side[0]) - np.pi / 2)

    def carry(self) -> tuple[NDArray[np.float64], float]:
        held = self.scene.position(self.target)
        goal = self.scene.position(self.container)
        offset = goal - held
        lateral = float(np.hypot(*offset[:2]))
        above = held[2] - goal[2]
        if lateral < self.release_radius and above < self.release_height + 0.01:
            return _towards(offset * [1, 1, 0]), GRIPPER_OPEN
        low = self.release_height
        height = low + float(np.clip(self.funnel * (lateral - 0.012), 0.0, self.travel - goal[2] - low))
        offset[2] = height - above
        offset[:2] *= _ramp(offset[2], 0.04, 0.015)
        return _towards(offset), GRIPPER_CLOSE


SCRIPTED_POLICIES: dict[str, type[ScriptedPickAndPlace]] = {
    "libero_object": DropIntoContainer,
    "libero_spatial": PlaceOnPlate,
}


def make_scripted_policy(scene: LiberoScene, target: str | None = None) -> ScriptedPickAndPlace:
    """The scripted policy of a scene's task.

    Args:
        scene: The scene.
        target: Object to pick up instead of the goal's.

    Raises:
        ValueError: There is none for this suite.
    """
    if scene.suite not in SCRIPTED_POLICIES:
        raise ValueError(
            f"There is no scripted policy for {scene.suite}; there is for {', '.join(SCRIPTED_POLICIES)}."
        )
    return SCRIPTED_POLICIES[scene.suite](scene, target)
