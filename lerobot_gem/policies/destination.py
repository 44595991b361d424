"""Where a policy is pushed when its training ends: where the user of this run says, not where the last one did."""

from typing import Any

from lerobot.configs import parser

_FIELDS = {"push_to_hub": False, "repo_id": None, "private": None}


def forget_destination(config: Any) -> None:
    """Forget where the author of a checkpoint pushed it, as far as the command line does not say it again.

    Checkpoints of version 0.1 say it in their config.json, and LeRobot mixes that with the command line before anybody could look:
    so its own parser is asked what was given. A run that is resumed has no `--policy.path`, and goes on as it was.

    Args:
        config: Of a policy that is loaded.

    Raises:
        ValueError: It is to be pushed, and nobody says where.
    """
    if parser.get_path_arg("policy") is None:
        return
    given = parser.get_yaml_overrides("policy") + (parser.get_cli_overrides("policy") or [])
    for name, default in _FIELDS.items():
        if parser.parse_arg(name, given) is None:
            setattr(config, name, default)
    if config.push_to_hub and not config.repo_id:
        raise ValueError(
            "--policy.push_to_hub=true without --policy.repo_id: expected the repository to push to, since the one that the "
            "checkpoint came from is its author's. Add --policy.repo_id=<you>/<name>."
        )
