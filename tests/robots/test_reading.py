"""Reading a robot: what is written to none, and what is said of a robot that can't be read so."""

from types import SimpleNamespace

from lerobot_gem.robots.findings import Preflight
from lerobot_gem.robots.reading import opened


def test_a_robot_without_one_bus_is_not_connected():
    found = Preflight("policy", "robot")
    with opened(SimpleNamespace(name="bi_so_follower", cameras={}), found) as observation:
        assert observation == {}
    assert "would switch its torque on" in found.findings[0].text


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
