"""Reads a robot without taking hold of it.

LeRobot's `Robot.connect` switches the motors' torque on. Here the serial bus of motors and the cameras are opened by themselves,
nothing is ever written to a motor, and torque stays as it was: an arm that holds itself is not dropped either. Motors on a CAN bus
are left alone: LeRobot's handshake there switches each of them on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lerobot.motors.motors_bus import SerialMotorsBus
from lerobot.robots import Robot

from lerobot_gem.inference.motor_order import numbers
from lerobot_gem.robots.findings import Preflight


@contextmanager
def opened(robot: Robot, found: Preflight) -> Iterator[dict[str, Any]]:
    """Open a robot, and read what it observes.

    Args:
        robot: With one serial bus of motors, and cameras, as SO-100 and SO-101 have.
        found: Where it is written what could not be read.

    Yields:
        The observation, without what could not be read.
    """
    bus: Any = getattr(robot, "bus", None)
    why_not = _why_not_opened(robot, bus)
    if why_not:
        found.add(
            "robot",
            "error",
            f"{robot.name!r} is not looked at: {why_not}. Expected a robot such as so100_follower, so101_follower or koch_follower.",
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


def _why_not_opened(robot: Robot, bus: Any) -> str:
    """Why a robot's state can't be read from its motors without switching them on; empty where it can."""
    if not isinstance(bus, SerialMotorsBus):
        return "it has no single serial bus of motors (Feetech, Dynamixel), and connecting it would switch its torque on"
    others = [
        name for name in numbers(robot.observation_features) if name.removesuffix(".pos") not in bus.motors
    ]
    if others:
        return f"{', '.join(others)} in its state are no positions of its motors, which is all that is read"
    return ""


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
