"""The order of a robot's motors: that of the data, or values go to other joints than they were learned for."""

from collections.abc import Iterable, Sequence
from typing import Any

from lerobot.robots import make_robot_from_config

from lerobot_gem.inference.run_configuration import run_fields


def numbers(features: Iterable[str]) -> list[str]:
    """A robot's numbers that LeRobot hands to a policy, in the robot's order.

    Args:
        features: The robot's `observation_features` or `action_features`.
    """
    return [name for name in features if name.endswith((".pos", ".vel"))]


def why_not_in_order(robot: Sequence[str], trained: Sequence[str]) -> str:
    """Say that a robot has the motors of the training data in another order.

    Args:
        robot: The robot's names, in its order.
        trained: Those of the training data, in theirs.

    Returns:
        One sentence, and what to do; empty where the order is the same, or where the names are others.
    """
    if list(robot) == list(trained) or sorted(robot) != sorted(trained):
        return ""
    return (
        f"The robot has its motors in another order, so that values would go to the wrong joints: {', '.join(robot)}, but the policy was "
        f"trained with {', '.join(trained)}. Use the robot type and motor names of the recording."
    )


def check_motor_order(config: Any) -> None:
    """Refuse a robot of `lerobot-rollout` that has the motors of the training data in another order.

    LeRobot 0.6.1 makes the state in the robot's order, and names the actions of synchronous inference by it. Under real-time chunking
    it sends actions by the policy's names. Of names that are others altogether it warns itself.

    Args:
        config: Of the policy that is loaded.

    Raises:
        ValueError: The robot has them in another order.
    """
    # Not of the preflight, which adds options to it: that lists this beside all else that it finds.
    rollout = run_fields(config, "lerobot.rollout.configs", "RolloutConfig", itself=True)
    if rollout is None:
        return
    trained = {"observation_features": config.built.state_names}
    if rollout["inference"].type != "rtc":
        trained["action_features"] = getattr(config, "action_feature_names", None) or []
    # Some robots do work when they are built: no robot is built that could not have these names.
    trained = {features: names for features, names in trained.items() if names and numbers(names) == names}
    if not trained:
        return
    robot = make_robot_from_config(rollout["robot"])
    for features, names in trained.items():
        why = why_not_in_order(numbers(getattr(robot, features)), names)
        if why:
            raise ValueError(why)
