"""A robot whose motors stand in another order than those of the training data is refused where LeRobot would confuse them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import pytest
from lerobot.configs import parser
from lerobot.robots.so_follower import SO101FollowerConfig
from lerobot.rollout.configs import RolloutConfig
from lerobot.rollout.context import _load_pretrained_policy
from lerobot.rollout.inference import RTCInferenceConfig, SyncInferenceConfig

from lerobot_gem.inference import motor_order
from lerobot_gem.inference.motor_order import check_motor_order, numbers, why_not_in_order
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from tests.robots.conftest import NAMES, save_policy, write_arm_dataset

REVERSED = NAMES[::-1]
LEGACY = [f"main_{name.removesuffix('.pos')}" for name in NAMES]
REFUSED = "in another order, so that values would go to the wrong joints: shoulder_pan.pos, .*, but the policy was trained with gripper.pos, "


def run(actions: list[str], state: list[str], *, rtc: bool = False, kind: type = RolloutConfig) -> Any:
    """Of an SO-101, without what its `__post_init__` loads."""
    config = object.__new__(kind)
    for name in kind.__dataclass_fields__:
        setattr(config, name, None)
    config.robot = SO101FollowerConfig(port="none")
    config.inference = RTCInferenceConfig() if rtc else SyncInferenceConfig()
    config.policy = GemVLAConfig(preset="tiny", device="cpu", action_feature_names=actions)
    config.policy.built.state_names = state
    return config


@pytest.mark.parametrize(
    ("actions", "state", "rtc"),
    [
        (REVERSED, [], False),
        (REVERSED, REVERSED, False),
        (NAMES, REVERSED, False),
        (REVERSED, REVERSED, True),
    ],
    ids=["actions", "both", "state", "state-rtc"],
)
def test_another_order_is_refused(actions: list[str], state: list[str], rtc: bool) -> None:
    rollout = run(actions, state, rtc=rtc)
    with pytest.raises(ValueError, match=REFUSED):
        check_motor_order(rollout.policy)


@pytest.mark.parametrize(
    ("actions", "state", "rtc"),
    [
        (NAMES, NAMES, False),
        (NAMES, NAMES, True),
        (REVERSED, [], True),  # LeRobot sends them by name
        (LEGACY, LEGACY, False),  # LeRobot warns
        ([*NAMES, "x.vel"], [], False),
        ([], [], False),
    ],
    ids=["same", "same-rtc", "named", "legacy", "more", "unknown"],
)
def test_what_acts_rightly_or_is_warned_of_is_not_refused(
    actions: list[str], state: list[str], rtc: bool
) -> None:
    rollout = run(actions, state, rtc=rtc)
    check_motor_order(rollout.policy)


@pytest.mark.parametrize("names", [[], LEGACY, [f"{name}.q" for name in NAMES]])
def test_no_robot_is_built_that_could_not_have_these_names(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motor_order, "make_robot_from_config", lambda _: pytest.fail("it was built"))
    rollout = run(names, names)
    check_motor_order(rollout.policy)


@dataclass
class LongerConfig(RolloutConfig):
    html: str = ""


def test_a_preflight_goes_on_to_list_it() -> None:
    flight = run(REVERSED, REVERSED, kind=LongerConfig)
    check_motor_order(flight.policy)


def test_without_a_rollout_nothing_is_compared() -> None:
    rollout = run(REVERSED, REVERSED)
    policy, rollout.policy = rollout.policy, None
    check_motor_order(policy)


def test_a_policy_without_actions_is_not_compared() -> None:
    rollout = run([], [])
    rollout.policy = GemConfig(preset="tiny", device="cpu")
    check_motor_order(rollout.policy)


def test_numbers_are_positions_and_velocities_in_order() -> None:
    features = {"b.pos": float, "front": (48, 64, 3), "a.vel": float, "a.torque": float}
    assert numbers(features) == ["b.pos", "a.vel"]


def test_only_the_same_names_can_be_in_another_order() -> None:
    assert not why_not_in_order(["a", "b"], ["a", "b"])
    assert not why_not_in_order(["a", "b"], ["a", "c"])
    assert not why_not_in_order(["a", "b"], [])
    assert why_not_in_order(["a", "b"], ["b", "a"]).startswith("The robot has its motors in another order")


def test_lerobot_rollout_is_refused_before_it_looks_for_a_robot(tmp_path: Path, monkeypatch) -> None:
    """As `lerobot-rollout` parses its command line and loads the policy."""
    policy = save_policy(write_arm_dataset(tmp_path / "data", names=REVERSED), tmp_path / "policy")
    options = ["--robot.type=so101_follower", "--robot.port=none", f"--policy.path={policy}"]
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *options])
    config = draccus.parse(RolloutConfig, args=parser.filter_path_args(["policy"], options))
    with pytest.raises(ValueError, match=REFUSED):
        _load_pretrained_policy(config.policy)
