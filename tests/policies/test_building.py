"""Where a policy's modules come from."""

from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig

from lerobot_gem.checkpoints import formats
from lerobot_gem.policies import building
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from tests.policies.gem.test_modeling_gem import gem_checkpoint  # noqa: F401 (a fixture)


def test_a_generator_from_elsewhere_brings_no_joint_training_of_the_backbone(gem_checkpoint: Path) -> None:  # noqa: F811
    joint = PreTrainedConfig.from_pretrained(gem_checkpoint)
    joint.built.stages_done = ["connector", "generator", "joint"]
    joint.save_pretrained(gem_checkpoint)
    alone = GemConfig(preset="tiny", device="cpu", depth=DepthConfig(pretrained=str(gem_checkpoint)))
    assert alone.sources.stages_done == ["connector", "generator"]
    together = GemConfig(preset="tiny", device="cpu", backbone=BackboneConfig(pretrained=str(gem_checkpoint)))
    assert together.sources.stages_done == joint.built.stages_done


def test_a_source_is_opened_once_for_policy_and_processors(
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def counted(pretrained: str, **hub: str) -> formats.Checkpoint:
        opened.append(str(pretrained))
        return formats.open_checkpoint(pretrained, **hub)

    monkeypatch.setattr(building, "open_checkpoint", counted)
    source = str(gem_checkpoint)
    policy, *_ = make_policy(
        depth_dataset_root, backbone=BackboneConfig(pretrained=source), depth=DepthConfig(loss_weight=0.1)
    )
    assert policy.generator is not None
    assert opened == [source]


def test_workers_of_runs_with_and_without_depth_are_seeded_alike(
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
) -> None:
    """LeRobot draws their seed from torch's generator after the policy was built."""
    backbone = BackboneConfig(pretrained=str(gem_checkpoint))
    seeds, weights = [], []
    for weight in (0, 0.1):
        torch.manual_seed(7)
        policy, *_ = make_policy(depth_dataset_root, backbone=backbone, depth=DepthConfig(loss_weight=weight))
        seeds.append(int(torch.empty((), dtype=torch.int64).random_()))
        weights.append(policy.expert.register_tokens)
    assert seeds[0] == seeds[1]
    assert weights[0].equal(weights[1])
