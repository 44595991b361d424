"""A policy is pushed where the command line says, and nowhere else."""

import sys

import pytest

from lerobot_gem.policies.destination import forget_destination
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig


@pytest.mark.parametrize(
    ("options", "push_to_hub", "repo_id"),
    [
        (["--policy.path=author/policy"], False, None),
        (["--policy.path=author/policy", "--policy.repo_id=me/mine"], False, "me/mine"),
        (["--policy.path", "author/policy", "--policy.push_to_hub=true", "--policy.repo_id=me/mine"], True, "me/mine"),
        (["--config_path=train_config.json", "--resume=true"], True, "author/policy"),
        ([], True, "author/policy"),
    ],
    ids=["fine-tuned", "named", "pushed", "resumed", "in Python"],
)  # fmt: skip
def test_what_the_author_said_is_forgotten_but_when_resuming(
    options: list[str], push_to_hub: bool, repo_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        option.removeprefix("--policy.").split("=")[0]: option.split("=")[-1]
        for option in options
        if "path" not in option
    }
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *options])
    config = GemVLAConfig(preset="tiny", device="cpu", push_to_hub=True, repo_id="author/policy")
    config.repo_id = given.get("repo_id", config.repo_id)  # as LeRobot mixes file and command line
    forget_destination(config)
    assert (config.push_to_hub, config.repo_id) == (push_to_hub, repo_id)


def test_to_push_one_must_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["lerobot-train", "--policy.path=author/policy", "--policy.push_to_hub=true"]
    )
    config = GemVLAConfig(preset="tiny", device="cpu", push_to_hub=True, repo_id="author/policy")
    with pytest.raises(ValueError, match="expected the repository to push to"):
        forget_destination(config)
