"""What is checked when a checkpoint is loaded, and what its model card says."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.policies.base_configuration import BackboneConfig, DepthConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import CAMERAS, TASKS
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save  # noqa: F401 (fixtures)


@pytest.fixture
def checkpoint(make_policy, tmp_path: Path) -> Path:
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.parametrize("change", [{"names": CAMERAS[::-1]}, {"max_pixels": 64 * 64}])
def test_cameras_are_those_of_the_checkpoint(checkpoint: Path, change: dict) -> None:
    config = PreTrainedConfig.from_pretrained(checkpoint)
    assert GemVLAPolicy.from_pretrained(checkpoint, config=config).config.cameras.names == list(CAMERAS)
    for name, value in change.items():
        setattr(config.cameras, name, value)
    with pytest.raises(ValueError, match=r"is not what the checkpoint was trained with, .*--rename_map"):
        GemVLAPolicy.from_pretrained(checkpoint, config=config)


@pytest.mark.parametrize("tasks", [2, 500])
def test_the_model_card_says_how_to_load_the_policy(
    make_policy, dataset_root: Path, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelCard, "validate", lambda card: None)  # asks the Hub
    policy, *_ = make_policy()
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    if tasks > 2:
        meta.tasks = meta.tasks.iloc[[0] * tasks]
    card = policy.generate_model_card("local/noise", "gem_vla", "apache-2.0", None, dataset_meta=meta)
    title, *_ = card.text.strip().splitlines()
    assert title.startswith("# Model Card") and card.data.license == "apache-2.0"
    assert "lerobot_policy_gem" in card.text and "2605.28548" in card.text
    assert card.text.count(TASKS[0]) <= 22 and len(meta.tasks) == tasks


def test_the_baseline_without_depth_leaves_the_generator_out(gem_checkpoint: Path, make_gem) -> None:  # noqa: F811
    config = PreTrainedConfig.from_pretrained(gem_checkpoint)
    config.stage, config.depth.loss_weight = "joint", 0.0
    policy = GemPolicy.from_pretrained(gem_checkpoint, config=config)
    assert policy.generator is None
    with pytest.raises(ValueError, match="learns no depth and has no depth generator"):
        policy.generate_depth({})


def test_a_generator_from_elsewhere_brings_no_joint_training_of_the_backbone(gem_checkpoint: Path) -> None:  # noqa: F811
    joint = PreTrainedConfig.from_pretrained(gem_checkpoint)
    joint.built.stages_done = ["connector", "generator", "joint"]
    joint.save_pretrained(gem_checkpoint)
    alone = GemConfig(preset="tiny", device="cpu", depth=DepthConfig(pretrained=str(gem_checkpoint)))
    assert alone.sources.stages_done == ["connector", "generator"]
    together = GemConfig(preset="tiny", device="cpu", backbone=BackboneConfig(pretrained=str(gem_checkpoint)))
    assert together.sources.stages_done == joint.built.stages_done
