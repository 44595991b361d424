"""What is known of the training data, with and without the dataset at hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_gem.robots.findings import Preflight
from lerobot_gem.robots.training_facts import training_facts
from tests.robots.conftest import FPS, HIGH, LOW, NAMES, TASK, write_arm_dataset


def facts(policy: Path, training_data: Path | str | None = None, found: Preflight | None = None, **built):
    """Of a policy whose configuration is changed to `built`."""
    config = PreTrainedConfig.from_pretrained(policy)
    for name, value in built.items():
        setattr(config.built, name, value)
    preprocess, _ = make_pre_post_processors(config, pretrained_path=str(policy))
    found = found or Preflight("policy", "robot")
    return training_facts(found, config, preprocess, str(policy), training_data and str(training_data))


def test_the_dataset_is_found_through_the_checkpoint(arm_policy: Path):
    said = Preflight("policy", "robot")
    found = facts(arm_policy, found=said)
    assert (found.fps, found.tasks, said.findings) == (FPS, [TASK], [])
    assert found.names == {OBS_STATE: NAMES, ACTION: NAMES}
    assert (found.lowest[ACTION] >= LOW - 1e-4).all()
    assert (found.highest[OBS_STATE] <= HIGH + 1e-4).all()
    assert found.pictures["observation.images.front"].dtype == np.uint8


def test_the_checkpoint_alone_has_ranges_and_names(arm_policy: Path, tmp_path: Path):
    policy = shutil.copytree(arm_policy, tmp_path / "policy")
    (policy / "train_config.json").unlink()
    said = Preflight("policy", "robot")
    found = facts(policy, found=said)
    assert "--training_data" in said.findings[0].text
    assert found.names[ACTION] == NAMES
    assert len(found.highest[ACTION]) == 6


def test_a_policy_on_the_hub_says_where_its_dataset_is(arm_policy: Path, tmp_path: Path, monkeypatch):
    """From the local cache, as it lies there after a download."""
    repository = tmp_path / "models--me--policy"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1" * 40)
    shutil.copytree(arm_policy, repository / "snapshots" / ("1" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = PreTrainedConfig.from_pretrained(arm_policy)
    preprocess, _ = make_pre_post_processors(config, pretrained_path=str(arm_policy))
    said = Preflight("policy", "robot")
    assert training_facts(said, config, preprocess, "me/policy", None).tasks == [TASK]
    (repository / "snapshots" / ("1" * 40) / "train_config.json").unlink()
    assert training_facts(said, config, preprocess, "me/policy", None).tasks == []
    assert "--training_data" in said.findings[0].text


def test_training_data_can_be_named(arm_policy: Path, arm_dataset: Path):
    assert facts(arm_policy, arm_dataset).tasks == [TASK]
    with pytest.raises(FileNotFoundError, match="No dataset in"):
        facts(arm_policy, arm_policy)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"fps": 30}, "it has 30 frames per second, the policy 10"),
        ({"names": NAMES[::-1]}, "its action is gripper.pos, wrist_roll.pos"),
    ],
    ids=["rate", "joints"],
)
def test_data_of_another_policy_do_not_override_the_checkpoint(
    arm_policy: Path, tmp_path: Path, other: dict, text: str
):
    said = Preflight("policy", "robot")
    found = facts(arm_policy, write_arm_dataset(tmp_path / "other", **other), said)
    assert (found.fps, found.names[ACTION], found.tasks, found.pictures) == (FPS, NAMES, [], {})
    [finding] = said.findings
    assert finding.level == "error"
    assert "is not the data this policy was trained on: " in finding.text and text in finding.text


def test_a_dataset_fills_in_what_the_checkpoint_does_not_say(arm_policy: Path, arm_dataset: Path):
    found = facts(arm_policy, arm_dataset, fps=None, state_names=[])
    assert (found.fps, found.names[OBS_STATE]) == (FPS, NAMES)


def test_only_the_episodes_whose_pictures_are_compared_are_downloaded(
    arm_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The others are missing in LeRobot's cache, and there is no Hub."""
    monkeypatch.setattr("lerobot.datasets.dataset_metadata.HF_LEROBOT_HOME", tmp_path)
    data = write_arm_dataset(tmp_path / "me" / "data", episodes=12)
    files = sorted((data / "data").rglob("*.parquet"))
    assert len(files) == 12
    for episode in (2, 5, 8, 10):
        files[episode].unlink()
    assert len(facts(arm_policy, "me/data").pictures["observation.images.front"]) == 8
