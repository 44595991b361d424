"""What is known of the training data, with and without the dataset at hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_gem.robots.training_facts import training_facts
from tests.robots.conftest import FPS, HIGH, LOW, NAMES, TASK


def facts(policy: Path, training_data: str | None = None):
    config = PreTrainedConfig.from_pretrained(policy)
    preprocess, _ = make_pre_post_processors(config, pretrained_path=str(policy))
    return training_facts(config, preprocess, str(policy), training_data)


def test_the_dataset_is_found_through_the_checkpoint(arm_policy: Path):
    found = facts(arm_policy)
    assert (found.fps, found.tasks, found.why_no_dataset) == (FPS, [TASK], "")
    assert found.names == {OBS_STATE: NAMES, ACTION: NAMES}
    assert (found.lowest[ACTION] >= LOW - 1e-4).all()
    assert (found.highest[OBS_STATE] <= HIGH + 1e-4).all()
    assert found.pictures["observation.images.front"].dtype == np.uint8


def test_the_checkpoint_alone_has_ranges_and_names(arm_policy: Path, tmp_path: Path):
    policy = shutil.copytree(arm_policy, tmp_path / "policy")
    (policy / "train_config.json").unlink()
    found = facts(policy)
    assert "--training_data" in found.why_no_dataset
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
    assert training_facts(config, preprocess, "me/policy", None).tasks == [TASK]
    (repository / "snapshots" / ("1" * 40) / "train_config.json").unlink()
    assert "--training_data" in training_facts(config, preprocess, "me/policy", None).why_no_dataset


def test_training_data_can_be_named(arm_policy: Path, arm_dataset: Path):
    assert facts(arm_policy, str(arm_dataset)).tasks == [TASK]
    with pytest.raises(FileNotFoundError, match="No dataset in"):
        facts(arm_policy, str(arm_policy))
