"""Reads a robot without taking hold of it.

LeRobot's `Robot.connect` switches the motors' torque on. Here the bus of motors and the cameras are opened by themselves,
nothing is ever written to a motor, and torque stays as it was: an arm that holds itself is not dropped either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lerobot.motors.motors_bus import MotorsBusBase
from lerobot.robots import Robot

from lerobot_gem.robots.findings import Preflight


@contextmanager
def opened(robot: Robot, found: Preflight) -> Iterator[dict[str, Any]]:
    """Open a robot, and read what it observes.

    Args:
        robot: With one bus of motors, and cameras, as SO-100 and SO-101 have.
        found: Where it is written what could not be read.

    Yields:
        The observation, without what could not be read.
    """
    bus = getattr(robot, "bus", None)
    if not isinstance(bus, MotorsBusBase):
        found.add(
            "robot",
            "error",
            f"{robot.name!r} has no single bus of motors, and connecting it as LeRobot does would switch its torque on: expected a "
            "robot such as so100_follower, so101_follower or koch_follower.",
        )
        yield {}
        return
    cameras = getattr(robot, "cameras", {})
    try:
        observation = _positions(robot, bus, found)
        for name, camera in cameras.items():
            try:
                camera.connect()
                observation[name] = camera.read_latest()
            except Exception as error:  # each kind of camera has its own
                found.add("cameras", "error", f"The camera {name!r} gives no picture: {error}")
        yield observation
    finally:
        if bus.is_connected:
            bus.disconnect(disable_torque=False)
        for camera in cameras.values():
            if camera.is_connected:
                camera.disconnect()


def _positions(robot: Any, bus: Any, found: Preflight) -> dict[str, Any]:
    try:
        bus.connect()
        if not robot.is_calibrated:
            found.add(
                "calibration",
                "error",
                f"The calibration in the motors is not that of {robot.calibration_fpath}, so that lerobot-rollout would stop and ask: "
                f"run lerobot-calibrate for this arm, with the same --robot.id.",
            )
            return {}
        found.add("calibration", "ok", f"The motors have the calibration of {robot.calibration_fpath}.")
        positions = bus.sync_read("Present_Position", num_retry=2)
    except Exception as error:  # each kind of bus has its own
        found.add("motors", "error", f"The motors do not answer: {error}")
        return {}
    return {f"{motor}.pos": float(value) for motor, value in positions.items()}
