"""Where a scene's objects start: the suite's own placements, or drawn wide over the reachable ground.

LIBERO's own initial states move the target by 0 to 3 cm, so that a policy which replays one demonstration with its
eyes closed solves them. `wide` placements can't be solved without looking.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scene_changes import LIBEROS_OWN, SceneChanges

PLACEMENTS = ("benchmark", "wide")
# First words of the seed: placements of one stream never meet those of another, whatever numbers follow.
STREAMS = {"training": 1, "evaluation": 2, "questions": 3}


@dataclass(frozen=True)
class Area:
    """A rectangle of the ground in metres; robot base at x = -0.6, looking along +x."""

    x: tuple[float, float]
    y: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(2,) a point drawn uniformly."""
        return np.array([rng.uniform(*self.x), rng.uniform(*self.y)])


@dataclass(frozen=True)
class WideRule:
    """How a suite's objects may be drawn.

    Attributes:
        objects: Body origins of everything but the container.
        container: Body origin of what the goal puts things into.
        distractors: Body origins of objects that are added to the suite's own; nobody needs to reach them.
        reach: Largest distance of an object from the robot's base; farther out the arm stretches until it locks.
        yaw: Largest turn of an object either way, radians. The container keeps its yaw: LIBERO's test whether
            something is inside is only right for the suite's own.
        gap: Least distance between footprints (circles), metres.
        target_gap: The same around the object to be picked, room for the open fingers.
        tall_gap: The same for neighbours that would touch the hand while the fingers are at the target.
    """

    objects: Area
    container: Area
    distractors: Area
    reach: float
    yaw: float
    gap: float = 0.01
    target_gap: float = 0.035
    tall_gap: float = 0.075


WIDE_RULES = {
    "libero_object": WideRule(
        objects=Area((-0.21, 0.13), (-0.28, 0.06)),
        container=Area((-0.10, 0.10), (0.22, 0.27)),
        distractors=Area((-0.30, 0.22), (-0.34, 0.36)),
        reach=0.75,
        yaw=0.5,
    ),
}
_ROBOT_BASE = np.array([-0.6, 0.0])
# Height of the Panda hand's palm above the point between the finger tips (measured 0.034 m), less a margin: an object
# that reaches higher stops the hand.
PALM_CLEARANCE = 0.028
_MAX_DRAWS, _DRAWS_PER_TARGET = 50_000, 5_000


def stream_rng(stream: str, *numbers: int) -> np.random.Generator:
    """A generator that depends on a stream (of `STREAMS`) and non-negative numbers, on nothing else."""
    return np.random.default_rng([STREAMS[stream], *numbers])


def target_and_container(scene: LiberoScene) -> tuple[str, str]:
    """The object that a pick-and-place goal names and the object or fixture that it goes to.

    Raises:
        ValueError: The goal is not one `in` or `on` predicate.
    """
    goal = scene.goal
    if len(goal) != 1 or goal[0][0] not in ("in", "on"):
        raise ValueError(
            f"{scene.suite} task {scene.task_id} is no single pick-and-place: its goal is {goal}."
        )
    _, target, place = goal[0]
    regions = scene.env.parsed_problem["regions"]
    return target, regions[place]["target"] if place in regions else place


def require_wide(suite: str) -> None:
    """Check that a suite's objects may be drawn wide.

    Raises:
        ValueError: They may not.
    """
    if suite not in WIDE_RULES:
        raise ValueError(
            f"There are no wide placements for {suite}, only for {', '.join(WIDE_RULES)}: the instructions of other "
            "suites say where things are. Use --placement=benchmark without scenes or random starts, or "
            "--env.type=libero."
        )


def turned(pose: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """A pose (7,) turned about the vertical through its origin by `yaw` radians."""
    import mujoco

    turn, result = np.zeros(4), pose.copy()
    mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), yaw)
    mujoco.mju_mulQuat(result[3:], turn, pose[3:])
    return result


def wide_placement(scene: LiberoScene, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Draw the poses of the suite's own objects at rest height, without overlap and with room for the hand at the target.

    Returns:
        {object: (7,) pose}, for `LiberoScene.place`; distractors are not among them.

    Raises:
        ValueError: No `wide` rule for this suite.
    """
    require_wide(scene.suite)
    rule = WIDE_RULES[scene.suite]
    poses, shapes = scene.rest
    target, container = target_and_container(scene)
    reach = _palm_height(scene, target)
    names = [name for name in scene.objects if name not in scene.distractors]
    # The target first: its place is then uniform over the area, whatever the others need.
    order = sorted(names, key=lambda name: (name != target, name != container, -shapes[name].radius))
    placed: dict[str, NDArray[np.float64]] = {}
    for draw in range(1, _MAX_DRAWS + 1):
        if draw % _DRAWS_PER_TARGET == 0:
            placed = {}  # about one place of the target in a thousand leaves no room for the rest
        name = order[len(placed)]
        area = rule.container if name == container else rule.objects
        point = area.draw(rng)
        pose = _pose(scene, name, point, 0.0 if name == container else rng.uniform(-rule.yaw, rule.yaw))
        within_reach = np.hypot(*(point - _ROBOT_BASE)) <= rule.reach
        if within_reach and _fits(name, point, placed, scene, target, reach, rule):
            placed[name] = pose
            if len(placed) == len(order):
                return placed
        elif rng.random() < 0.02:
            # A corner that leaves no room for the rest: give up everything but the target.
            placed = {target: placed[target]} if target in placed else {}
    raise RuntimeError(f"No wide placement of {len(order)} objects found in {_MAX_DRAWS} draws.")


def with_distractors(
    scene: LiberoScene, placement: dict[str, NDArray[np.float64]], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Add the scene's distractors to a wide placement, where they leave the target as much room as the others do.

    Returns:
        {object: (7,) pose} of all objects.
    """
    rule = WIDE_RULES[scene.suite]
    target, _ = target_and_container(scene)
    reach = _palm_height(scene, target)
    placed = dict(placement)
    for name in scene.distractors:
        for _ in range(_MAX_DRAWS):
            point, yaw = rule.distractors.draw(rng), rng.uniform(-rule.yaw, rule.yaw)
            if _fits(name, point, placed, scene, target, reach, rule):
                placed[name] = _pose(scene, name, point, yaw)
                break
        else:
            raise RuntimeError(f"No place for {name} found in {_MAX_DRAWS} draws.")
    return placed


def _palm_height(scene: LiberoScene, target: str) -> float:
    """Height at rest of the hand's palm when the fingers close: neighbours that reach higher are in its way."""
    poses, shapes = scene.rest
    return float(max(poses[target][2] + PALM_CLEARANCE, poses[target][2] + shapes[target].high[2]))


def _pose(scene: LiberoScene, name: str, point: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """(7,) an object at rest at a point (2,) of the ground, turned by `yaw` radians."""
    pose = turned(scene.rest[0][name], yaw)
    pose[:2] = point
    pose[2] += scene.ground
    return pose


def _fits(
    name: str,
    point: NDArray[np.float64],
    placed: dict[str, NDArray[np.float64]],
    scene: LiberoScene,
    target: str,
    reach: float,
    rule: WideRule,
) -> bool:
    poses, shapes = scene.rest
    for other, pose in placed.items():
        gap = rule.gap
        if target in (name, other):
            neighbour = other if name == target else name
            tall = poses[neighbour][2] + shapes[neighbour].high[2] > reach
            gap = rule.tall_gap if tall else rule.target_gap
        if np.hypot(*(point - pose[:2])) < shapes[name].radius + shapes[other].radius + gap:
            return False
    return True


def apply_wide(scene: LiberoScene, rng: np.random.Generator, changes: SceneChanges = LIBEROS_OWN) -> None:
    """Reset the scene to a wide placement and let it come to rest.

    Args:
        scene: The scene.
        rng: Draws the layout. Where the suite's own objects are on the ground depends neither on `changes` nor on the
            scene's distractors.
        changes: What else differs from LIBERO's scene.
    """
    # Generators of their own: what they draw moves nothing else.
    for_changes, for_distractors = rng.spawn(2)
    changes.apply(scene, for_changes)
    placement = with_distractors(scene, wide_placement(scene, rng), for_distractors)
    scene.reset()
    scene.place(placement)
    scene.settle(0.2)


def apply_benchmark(scene: LiberoScene, index: int) -> None:
    """Reset the scene to the suite's initial state `index` (modulo their number) and let it come to rest."""
    scene.reset()
    scene.set_state(scene.init_states[index % len(scene.init_states)])
    scene.settle(0.5)  # what LeRobot's env waits at LIBERO's 20 Hz
