"""What other people call what LeRobot's policies read, and the command that renames it in a dataset.

LeRobot hands a policy the cameras and vectors named `observation.*`, and `action`. openpi writes `image`, `wrist_image`,
`state` and `actions`. `--rename_map` does not help: it renames what is named `observation.*` already.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE, OBS_STR

from lerobot_gem.processing.depth_cameras import is_depth

_STATES = ("state", "states", "robot_state", "proprio", "qpos", "joint_position", "joint_positions")
_ACTIONS = ("actions", "action_vector")


def expected_names(features: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """A dataset's names that policies do not read -> those that they would.

    Args:
        features: The dataset's features, as in meta/info.json.
    """
    expected = {
        name: f"{OBS_IMAGES}.{name.replace('/', '.').rpartition('.')[2]}"
        for name, feature in features.items()
        if feature["dtype"] in ("image", "video")
        and not name.startswith(f"{OBS_STR}.")
        and not is_depth(feature)
    }
    for name, others, part in (
        (OBS_STATE, _STATES, f"{OBS_STATE}."),
        (ACTION, _ACTIONS, f"{ACTION}."),
    ):
        found = [other for other in features if other in others or other.startswith(part)]
        if name not in features and len(found) == 1:
            expected[found[0]] = name
    return {name: new for name, new in expected.items() if new not in features}


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
