"""Reading a robot: what is written to none, and what is said of a robot that can't be read so."""

from pathlib import Path
from types import SimpleNamespace

from lerobot.motors.motors_bus import MotorsBusBase

from lerobot_gem.robots.findings import Preflight
from lerobot_gem.robots.reading import opened


def test_a_robot_without_one_bus_is_not_connected():
    found = Preflight("policy", "robot")
    with opened(SimpleNamespace(name="bi_so_follower", cameras={}), found) as observation:
        assert observation == {}
    assert "would switch its torque on" in found.findings[0].text


class CanBus(MotorsBusBase):
    """As LeRobot's CAN buses do, it switches every motor on when it is opened, and leaves them so."""

    is_connected = is_energised = False

    def connect(self, handshake: bool = True) -> None:
        self.is_connected = self.is_energised = True


CanBus.__abstractmethods__ = frozenset()  # nothing else of it may be called


def test_motors_on_a_can_bus_are_not_switched_on():
    found, bus = Preflight("policy", "robot"), CanBus("can0", {})
    with opened(SimpleNamespace(name="openarm_follower", bus=bus, cameras={}), found) as observation:
        assert observation == {}
    assert not bus.is_energised
    [finding] = found.findings
    assert finding.level == "error"
    assert "'openarm_follower' is not looked at: it has no single serial bus of motors" in finding.text


def test_a_robot_that_observes_more_than_positions_is_not_opened(tmp_path: Path):
    from lerobot.robots.lekiwi import LeKiwi, LeKiwiConfig

    found = Preflight("policy", "robot")
    robot = LeKiwi(LeKiwiConfig(port="/nowhere", cameras={}, id="test", calibration_dir=tmp_path))
    with opened(robot, found) as observation:
        assert observation == {}
    [finding] = found.findings
    assert "x.vel, y.vel, theta.vel in its state are no positions" in finding.text


def test_nothing_is_written_to_an_emulated_arm(tmp_path, calibration):
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    from tests.robots.feetech_bus import TORQUE, FeetechBus

    found = Preflight("policy", "robot")
    with FeetechBus() as bus:
        bus.servos[1].table[TORQUE] = 1
        robot = SO101Follower(SO101FollowerConfig(port=bus.port, id="test", calibration_dir=calibration))
        with opened(robot, found) as observation:
            assert abs(observation["shoulder_pan.pos"]) < 0.1  # degrees from the middle
        assert bus.writes == []
        assert bus.torque() == [1]
        assert not robot.bus.is_connected
    assert found.count("error") == 0
