"""What other people call what LeRobot's policies read, and the command that renames it in a dataset.

LeRobot hands a policy the cameras and vectors named `observation.*`, and `action`. openpi writes `image`, `wrist_image`,
`state` and `actions`. `--rename_map` does not help: it renames what is named `observation.*` already.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE, OBS_STR

from lerobot_gem.processing.depth_cameras import DEPTH_SUFFIX, depth_key, is_depth

_STATES = ("state", "states", "robot_state", "proprio", "qpos", "joint_position", "joint_positions")
_STATE_WORDS = re.compile(r"state|joint|qpos|proprio|pose|position", re.IGNORECASE)
_ACTIONS = ("actions", "action_vector")
_SEPARATORS = re.compile(r"[./]")
# What names of cameras begin with that says nothing of which camera it is.
_PREFIXES = (OBS_STR, "images")


def outside_observation(features: Mapping[str, dict[str, Any]]) -> list[str]:
    """Cameras of a dataset that LeRobot does not hand to a policy, since they are not named observation.*."""
    return [
        name
        for name, feature in features.items()
        if feature["dtype"] in ("image", "video") and not name.startswith(f"{OBS_STR}.")
    ]


def left_out(name: str, features: Iterable[str]) -> str:
    """What to say of such a camera.

    Args:
        name: Of the camera.
        features: All such cameras of the dataset, or all of its features.
    """
    # With its whole name, which is no other camera's. Depth would have no RGB camera if one of both were renamed.
    rgb = name.removesuffix(DEPTH_SUFFIX)
    renamed = [one for one in (rgb, depth_key(rgb)) if one in features and not one.startswith(f"{OBS_STR}.")]
    return (
        f"The camera {name!r} is left out: LeRobot hands on the cameras that are named {OBS_IMAGES}.<name>. If the policy is to see it, "
        f"rename it: {rename_command({one: _whole_name(one) for one in renamed})}"
    )


def state_like(features: Mapping[str, dict[str, Any]]) -> list[str]:
    """Vectors of a dataset that look like a robot's state, beside `observation.state`, the one that is read."""
    return [
        name
        for name, feature in features.items()
        if feature["dtype"].startswith("float")
        and not name.startswith((ACTION, "next."))
        and name not in (OBS_STATE, OBS_ENV_STATE)
        and _STATE_WORDS.search(name)
    ]


def no_state(others: Sequence[str]) -> str:
    """What to say of a dataset without `observation.state` that has vectors which look like one."""
    return (
        f"No {OBS_STATE!r}: the policy acts on images and task alone, though {', '.join(map(repr, others))} may be the robot's state. "
        "Say that this is meant with --policy.expert.use_state=false, or rename it: "
        f"{rename_command({others[0]: OBS_STATE})}"
    )


def expected_names(features: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """A dataset's names that policies do not read -> those that they would.

    Args:
        features: The dataset's features, as in meta/info.json.
    """
    expected = _camera_names(features)
    for name, others, part in (
        (OBS_STATE, _STATES, f"{OBS_STATE}."),
        (ACTION, _ACTIONS, f"{ACTION}."),
    ):
        found = [other for other in features if other in others or other.startswith(part)]
        if name not in features and len(found) == 1:
            expected[found[0]] = name
    return {name: new for name, new in expected.items() if new not in features}


def _camera_names(features: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Cameras that LeRobot hands to no policy, each with its depth, -> what they would be called, no two alike."""
    cameras = [name for name in outside_observation(features) if not is_depth(features[name])]
    short = {name: f"{OBS_IMAGES}.{_SEPARATORS.split(name)[-1]}" for name in cameras}
    uses = Counter(short.values())
    names: dict[str, str] = {}
    for name in cameras:
        is_free = uses[short[name]] == 1 and short[name] not in features
        names[name] = short[name] if is_free else _whole_name(name)
        depth = depth_key(name)
        if depth in features and is_depth(features[depth]):
            names[depth] = depth_key(names[name])
    return names


def _whole_name(name: str) -> str:
    """What a camera would be called by all parts of its name: `left.image` and `observation/left/image` become `left_image`."""
    parts = _SEPARATORS.split(name)
    while len(parts) > 1 and parts[0] in _PREFIXES:
        del parts[0]
    return f"{OBS_IMAGES}.{'_'.join(parts)}"


def check_names(features: Mapping[str, dict[str, Any]], *, needs_action: bool) -> None:
    """Refuse a dataset whose cameras or actions have other people's names, before something says that it has none.

    Args:
        features: The dataset's features.
        needs_action: Whether the policy learns actions.

    Raises:
        ValueError: No camera, or no action that is needed, has the name that policies read, and another has.
    """
    expected = expected_names(features)
    is_camera = {
        name: feature["dtype"] in ("image", "video") and not is_depth(feature)
        for name, feature in features.items()
    }
    lacks_camera = not any(is_camera[name] and name.startswith(f"{OBS_STR}.") for name in features)
    missing = [
        name
        for name, new in expected.items()
        if (lacks_camera and is_camera[name]) or (needs_action and new == ACTION)
    ]
    if missing:
        raise ValueError(
            f"The dataset names {', '.join(map(repr, missing))} what LeRobot's policies read as "
            f"{', '.join(repr(expected[name]) for name in missing)}. --rename_map can't change that. Rename it in the dataset: "
            f"{rename_command(expected)}"
        )


def rename_command(names: Mapping[str, str]) -> str:
    """The command that copies a dataset with other names."""
    written = shlex.quote(json.dumps(dict(names)))
    return f"lerobot-gem-rename --dataset.repo_id=<id> --dataset.root=<folder> --names={written} --output.root=<new folder>"


def flat_names(feature: str, names: Any, dim: int) -> list[str]:
    """Names of a vector's numbers, in order.

    Args:
        feature: Of the dataset.
        names: As a dataset has them: a list, a list of lists, or a dictionary of lists or of positions.
        dim: How many numbers there are.

    Raises:
        ValueError: They are nested, and more or fewer than the numbers.
    """

    def leaves(part: Any) -> list[str]:
        if isinstance(part, dict):
            groups = ((key, value) for key, value in part.items())
            return [
                leaf
                for key, value in groups
                for leaf in leaves(value if isinstance(value, dict | list) else key)
            ]
        if isinstance(part, list | tuple):
            return [leaf for entry in part for leaf in leaves(entry)]
        return [str(part)]

    flat = leaves(names)
    is_nested = isinstance(names, dict) or any(not isinstance(name, str) for name in names)
    if is_nested and len(flat) != dim:
        raise ValueError(
            f"The names of {feature!r} in meta/info.json are {names!r}: expected a list of {dim} names, or null. Correct "
            f"features.{feature}.names there."
        )
    return flat
