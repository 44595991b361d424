"""A robot is sent actions at the rate of the training data."""

import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import draccus
import pytest
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.robots import so_follower  # noqa: F401, registers the arm
from lerobot.rollout.configs import RolloutConfig
from lerobot.rollout.context import _load_pretrained_policy

from lerobot_gem.inference.control_rate import match_rate
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig


@pytest.fixture
def rollout() -> RolloutConfig:
    """Without what its `__post_init__` loads."""
    config = object.__new__(RolloutConfig)
    for name in RolloutConfig.__dataclass_fields__:
        setattr(config, name, None)
    config.fps, config.policy = 30.0, GemVLAConfig(preset="tiny", device="cpu")
    return config


@pytest.mark.parametrize(
    ("options", "trained", "fps", "said"),
    [
        ([], 10.0, 10.0, "fps is 10: the rate of the policy's training data"),
        (["--fps=30"], 10.0, 30.0, "fps=30, but the policy's training data has 10 .* mean 3 times the speed"),
        (["--fps=30"], 30.0, 30.0, None),
        ([], None, 30.0, None),
    ],
    ids=["not given", "given", "right", "unknown"],
)
def test_the_rate_is_set_or_warned_of(options, trained, fps, said, rollout, caplog, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *options])
    with caplog.at_level(logging.WARNING):
        match_rate(rollout.policy, trained)
    assert rollout.fps == fps
    if said is None:
        assert not caplog.records
    else:
        assert re.search(said, caplog.text)


@pytest.mark.parametrize(
    ("content", "fps", "of_dataset"),
    [
        ("robot: {type: so101_follower}", 10, 10),
        ("dataset: {fps: 20}", 10, 20),
        ("fps: 30", 30, 25),
    ],
    ids=["neither", "the dataset's", "the rollout's"],
)
def test_a_file_gives_a_rate_where_it_says_one(
    content, fps, of_dataset, rollout, caplog, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(content)
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", f"--config_path={tmp_path / 'run.yaml'}"])
    rollout.dataset = SimpleNamespace(fps=20 if "dataset" in content else 25)
    match_rate(rollout.policy, 10.0)
    assert (rollout.fps, rollout.dataset.fps) == (fps, of_dataset)
    assert ("Leave fps out" in caplog.text) == (fps == 30)


def evaluation(env_type: str, fps: int) -> EvalPipelineConfig:
    """Without what its `__post_init__` loads."""
    config = object.__new__(EvalPipelineConfig)
    for name in EvalPipelineConfig.__dataclass_fields__:
        setattr(config, name, None)
    config.env = SimpleNamespace(type=env_type, fps=fps)
    config.policy = GemVLAConfig(preset="tiny", device="cpu")
    return config


def test_a_simulated_arm_at_another_rate_is_warned_of(caplog) -> None:
    for env_type, fps in (("gem_so101", 5), ("libero", 20)):
        run = evaluation(env_type, fps)
        match_rate(run.policy, 5.0)
    assert not caplog.records
    run = evaluation("gem_so101", 10)
    match_rate(run.policy, 5.0)
    assert "env.fps=10, but the policy's training data has 5 frames per second" in caplog.text


def test_without_a_rollout_nothing_happens(caplog) -> None:
    match_rate(GemVLAConfig(preset="tiny", device="cpu"), 10.0)
    assert not [record for record in caplog.records if "fps" in record.message]


def test_lerobot_rollout_acts_at_the_rate_of_the_data(make_policy, tmp_path: Path, monkeypatch) -> None:
    """As `lerobot-rollout` parses its command line and loads the policy, before it looks for a robot."""
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path)
    options = ["--robot.type=so101_follower", "--robot.port=none", f"--policy.path={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *options])
    config = draccus.parse(RolloutConfig, args=parser.filter_path_args(["policy"], options))
    assert config.fps == 30
    _load_pretrained_policy(config.policy)
    assert config.fps == 5


@pytest.mark.parametrize("trained", [0.0, -5.0, float("nan"), float("inf"), 1e6])
@pytest.mark.parametrize("options", [[], ["--fps=30"]])
def test_a_rate_of_no_arm_is_refused(options, trained, rollout, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *options])
    with pytest.raises(ValueError, match="expected frames per second of its training data"):
        match_rate(rollout.policy, trained)
    assert rollout.fps == 30
