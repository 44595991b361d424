"""LeRobot's unmodified lerobot-rollout on an emulated SO-100 or SO-101 arm, as a subprocess."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.robots.conftest import FPS, NAMES, TASK, save_policy, write_arm_dataset
from tests.robots.feetech_bus import HIGHEST, LOWEST, MIDDLE, PRESENT, FeetechBus

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_camera_plugin")]

ROLLOUT = Path(sys.executable).parent / "lerobot-rollout"
RTC = ("--inference.type=rtc", "--inference.queue_threshold=4", "--inference.rtc.execution_horizon=6")


def rollout(policy: Path, *options: str, seconds: int = 5) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(ROLLOUT),
            f"--policy.path={policy}",
            f"--duration={seconds}",
            f"--fps={FPS}",
            "--device=cpu",
            "--return_to_initial_position=false",
            *options,
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )


def late_share(bus: FeetechBus) -> float:
    """Share of ticks that came more than half a tick late."""
    ticks = np.diff([at for at, _ in bus.goals()])
    return float((ticks > 1.5 / FPS).mean())


@pytest.mark.parametrize(
    ("robot", "inference"), [("so100_follower", ()), ("so101_follower", RTC)], ids=["so100-sync", "so101-rtc"]
)
def test_the_arm_moves_at_its_rate_within_its_limits(
    arm_policy: Path,
    arm_options: Callable,
    robot: str,
    inference: tuple[str, ...],
    record_property: Callable[[str, object], None],
):
    with FeetechBus() as bus:
        result = rollout(arm_policy, *arm_options(bus.port, robot), *inference)
        assert result.returncode == 0, result.stderr[-3000:]
        assert f"acting on {TASK!r}" in result.stdout + result.stderr, "the one task of the dataset"
        goals = np.array([places for _, places in bus.goals()])
        # Half of the ticks at least, on however busy a machine.
        assert len(goals) > 5 * FPS / 2
        assert (np.ptp(goals, axis=0) > 20).all(), "each joint moves"
        assert np.abs(goals[0] - MIDDLE).max() < 4096 / 2
        for servo in bus.servos.values():
            assert LOWEST <= servo.word(PRESENT) <= HIGHEST
        assert bus.torque() == []
    share = late_share(bus)
    print(f"{robot}, {inference or 'sync'}: {len(goals)} goals, {share:.0%} of ticks late")
    record_property("late_share", share)


def test_no_goal_is_farther_than_the_user_allows(arm_policy: Path, arm_options: Callable):
    with FeetechBus() as bus:
        limit = "--robot.max_relative_target=2"
        result = rollout(arm_policy, *arm_options(bus.port), f"--task={TASK}", limit, seconds=2)
        assert result.returncode == 0, result.stderr[-3000:]
        goals = np.array([[MIDDLE] * 6, *(places for _, places in bus.goals())])
    # In degrees, and in hundredths of its way for the gripper; a step of the servo is rounded away.
    degrees, hundredths = 2 * 4095 / 360, 2 * (HIGHEST - LOWEST) / 100
    assert np.abs(np.diff(goals, axis=0)).max(axis=0)[:5].max() <= degrees + 1
    assert np.abs(np.diff(goals[:, 5])).max() <= hundredths + 1


@pytest.mark.parametrize(("silent", "held"), [(6, [6]), (3, [3, 4, 5, 6])])
def test_a_servo_that_answers_no_more_ends_the_run(
    arm_policy: Path, arm_options: Callable, silent: int, held: list[int]
):
    """LeRobot lets go of the motors in order, as far as they answer: docs/how_to/so100.md warns of those behind."""
    with FeetechBus(silent_after={silent: 10}) as bus:
        result = rollout(arm_policy, *arm_options(bus.port), f"--task={TASK}", seconds=60)
        assert result.returncode == 1
        assert "ConnectionError" in result.stderr
        assert bus.torque() == held
        assert len(bus.goals()) < 60 * FPS / 2


def test_a_camera_that_is_gone_ends_the_run_with_torque_off(arm_policy: Path, arm_options: Callable):
    with FeetechBus() as bus:
        cameras = "{front: {type: pictures, frames: 10}}"
        result = rollout(arm_policy, *arm_options(bus.port, cameras=cameras), f"--task={TASK}", seconds=60)
        assert result.returncode == 1
        assert "The camera is gone." in result.stderr
        assert bus.torque() == []


@pytest.mark.parametrize("inference", [(), RTC], ids=["sync", "rtc"])
def test_motors_in_another_order_end_the_run_before_the_arm_is_connected(
    tmp_path: Path, arm_options: Callable, inference: tuple[str, ...]
):
    policy = save_policy(write_arm_dataset(tmp_path / "data", names=NAMES[::-1]), tmp_path / "policy")
    with FeetechBus() as bus:
        result = rollout(policy, *arm_options(bus.port), f"--task={TASK}", *inference, seconds=20)
        assert result.returncode == 1
        assert "values would go to the wrong joints" in result.stderr.strip().splitlines()[-1]
        assert bus.writes == []


@pytest.mark.parametrize(
    ("missing", "inference"),
    [("task", RTC), ("camera", ())],
    ids=["task-rtc", "camera-sync"],
)
def test_what_is_missing_ends_the_run_with_our_error(
    tmp_path: Path, arm_options: Callable, inference: tuple[str, ...], missing: str
):
    cameras, tasks = (("front",), ("a", "b")) if missing == "task" else (("front", "wrist"), ("a",))
    data = write_arm_dataset(tmp_path / "data", tasks=tasks, cameras=cameras)
    policy = save_policy(data, tmp_path / "policy")
    with FeetechBus() as bus:
        result = rollout(policy, *arm_options(bus.port), *inference, seconds=20)
        assert result.returncode == 1, result.stderr[-3000:]
        said = "No task text" if missing == "task" else "observation.images.wrist"
        assert said in result.stderr.strip().splitlines()[-1]
        assert bus.goals() == []
        assert bus.torque() == []
