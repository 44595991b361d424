"""What is known of the training data, with and without the dataset at hand."""

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
    import shutil

    policy = shutil.copytree(arm_policy, tmp_path / "policy")
    (policy / "train_config.json").unlink()
    found = facts(policy)
    assert "--training_data" in found.why_no_dataset
    assert found.names[ACTION] == NAMES
    assert len(found.highest[ACTION]) == 6


def test_training_data_can_be_named(arm_policy: Path, arm_dataset: Path):
    assert facts(arm_policy, str(arm_dataset)).tasks == [TASK]
    with pytest.raises(FileNotFoundError, match="No dataset in"):
        facts(arm_policy, str(arm_policy))
