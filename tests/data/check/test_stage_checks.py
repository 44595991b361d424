"""Stages bound to a dataset without a model, and its texts without its pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.check.stage_checks import (
    FrameErrors,
    TrainingView,
    bind_stage,
    config_for_texts,
    lacks,
    stage_config,
    stage_of,
    text_batches,
    usable_depth,
)
from lerobot_gem.data.check.training_path import bind
from lerobot_gem.policies.base_options import CamerasConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.training.stages import STAGES
from tests.conftest import CAMERAS, build_policy, read_batch
from tests.data.check.conftest import gem

FRONT, WRIST = CAMERAS


@pytest.fixture
def dataset(depth_dataset_root: Path) -> LeRobotDataset:
    return LeRobotDataset("local/noise", root=depth_dataset_root)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("given", [None, "joint", "action"])
def test_each_stage_has_a_configuration_with_the_cameras_of_the_given_one(stage, given):
    cameras = CamerasConfig(names=[FRONT])
    policies = {
        None: None,
        "joint": gem(stage="joint", cameras=cameras),
        "action": GemVLAConfig(preset="tiny", cameras=cameras, chunk_size=5),
    }
    config = stage_config(stage, policies[given])
    assert stage_of(config) == stage
    assert config.cameras.names == ([FRONT] if given else None)
    assert config.depth.loss_weight == (0.0 if stage == "action" else 0.1)
    assert config is not policies[given] and config.cameras is not cameras
    if stage == given == "action":
        assert config.chunk_size == 5


def test_a_stage_that_was_not_asked_about_is_judged_by_the_dataset_alone(depth_dataset_root: Path):
    """A training from scratch is refused where stages before it were skipped; that is not the dataset's fault."""
    meta = LeRobotDatasetMetadata("local/noise", root=depth_dataset_root)
    given = GemConfig(preset="tiny", device="cpu", stage="joint")
    asked, other = bind_stage("joint", given, meta, {}), bind_stage("generator", given, meta, {})
    assert asked.config is None and "--policy.allow_untrained=true" in asked.errors[0]
    assert other.errors == [] and other.config.built.depth_cameras
    assert config_for_texts(given, meta).loss_weights == {"language": 1.0}


def test_what_a_stage_lacks(dataset_root: Path, depth_dataset_root: Path):
    plain, deep = (
        LeRobotDatasetMetadata("local/noise", root=root) for root in (dataset_root, depth_dataset_root)
    )
    assert {stage: lacks(stage, plain) for stage in STAGES} == {
        "connector": "no depth",
        "generator": "no depth",
        "joint": "no depth",
        "action": None,
    }
    assert not any(lacks(stage, deep) for stage in STAGES)


def test_texts_without_pictures_are_the_prompts_of_training(dataset, depth_dataset_root: Path):
    _, preprocess, _ = build_policy(gem(), depth_dataset_root)
    prompts = preprocess(read_batch(depth_dataset_root, range(5)))["observation.language.attention_mask"]
    config = gem()
    bind(config, dataset.meta, {})
    texts = TrainingView(config, dataset.meta, {}).read_texts(dataset, range(5))
    assert texts.lengths == prompts.sum(dim=1).tolist()
    assert texts.questions == {FRONT: 1, WRIST: 2, None: 3}
    assert (texts.frames, texts.with_language, texts.task_only, texts.left_out) == (5, 5, 3, 0)


def test_questions_about_cameras_that_the_policy_lacks_are_counted(dataset):
    config = gem(cameras=CamerasConfig(names=[FRONT]))
    bind(config, dataset.meta, {})
    texts = TrainingView(config, dataset.meta, {}).read_texts(dataset, range(5))
    assert (texts.left_out, texts.questions) == (2, {FRONT: 1, None: 3})
    assert texts.with_language == 4  # frame 3 has but a question about the other camera


def test_text_batches_are_those_of_the_collate_function(dataset, depth_dataset_root: Path):
    [batch] = text_batches(dataset, [0, 11, 29])
    raw = read_batch(depth_dataset_root, [0, 11, 29])
    assert batch["task"] == raw["task"]
    for name in ("index", "timestamp"):
        assert torch.equal(batch[name], raw[name]) and batch[name].dtype == raw[name].dtype


def test_frames_have_usable_depth_if_one_camera_has(depth_dataset_root: Path):
    batch = read_batch(depth_dataset_root, range(3))
    batch[f"{FRONT}_depth"][1:] = 0
    batch[f"{WRIST}_depth"][2] = 10.0  # what LeRobot's videos make of 0
    pairs = {camera: f"{camera}_depth" for camera in CAMERAS}
    supervision = replace(gem().depth_supervision, cameras=pairs)
    assert usable_depth(batch, supervision).tolist() == [True, True, False]
    assert usable_depth(batch, replace(supervision, cameras={})).tolist() == [False] * 3


def test_errors_of_many_frames_are_counted():
    errors = FrameErrors()
    assert errors.lines == []
    for frame in (4, 8, 15, 16, 23):
        errors.add(frame, ValueError("broken"))
    assert errors.lines[0] == "frame 4: broken" and len(errors.lines) == 4
    assert errors.lines[-1] == "and the like at 2 more frame(s)"
    assert errors.frames == {4, 8, 15, 16, 23}
