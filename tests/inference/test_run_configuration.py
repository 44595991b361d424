"""What a policy finds out of the run that loads it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from lerobot_gem.inference.run_configuration import in_run_file, is_given, run_fields


@dataclass
class Run:
    policy: object
    fps: float = 30.0


@dataclass
class LongerRun(Run):
    html: str = ""


def test_the_run_that_holds_the_policy_is_found_and_can_be_written_to():
    run = Run(policy=SimpleNamespace())
    fields = run_fields(run.policy, __name__, "Run")
    fields["fps"] = 10.0
    assert run.fps == 10


def test_one_that_adds_fields_is_found_unless_the_class_itself_is_asked_for():
    longer = LongerRun(policy=SimpleNamespace())
    assert run_fields(longer.policy, __name__, "Run")["html"] == ""
    assert run_fields(longer.policy, __name__, "Run", itself=True) is None
    run = Run(policy=SimpleNamespace())
    assert run_fields(run.policy, __name__, "Run", itself=True)["fps"] == 30


def test_without_such_a_run_there_is_none():
    other = SimpleNamespace(policy=SimpleNamespace())
    assert run_fields(other.policy, __name__, "Run") is None
    assert run_fields(other.policy, "not.imported", "Run") is None


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_an_option_is_given_on_the_command_line_or_in_the_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / f"run.{suffix}"
    file.write_text('{"fps": 10, "dataset": {"fps": 20}, "task": null}')
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", f"--config_path={file}", "--seed=1"])
    assert all(map(is_given, ("fps", "dataset.fps", "dataset", "seed")))
    assert not any(map(is_given, ("task", "dataset.root", "fps.value", "robot")))
    assert in_run_file("dataset.fps") == 20
    assert in_run_file("seed") is None


def test_without_a_file_the_command_line_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty.yaml").write_text("")
    for given in ([], ["--config_path=me/on_the_hub"], [f"--config_path={tmp_path / 'empty.yaml'}"]):
        monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *given, "--fps=10"])
        assert is_given("fps") and not is_given("dataset.fps")
