"""A language head that is not tied to the embeddings, as that of `8b`: kept where something is written, left out elsewhere."""

from pathlib import Path

import pytest
import torch

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.policies.token_options import CoTrainingConfig
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer
from tests.conftest import ACTION_DIM
from tests.models.small_backbone import small_backbone
from tests.policies.gem.test_modeling_gem import save
from tests.policies.test_adapters import LORA, load, save_adapter

HEAD = "backbone.lm_head.weight"


@pytest.fixture
def untied(tmp_path: Path) -> str:
    """Qwen3-VL in the sizes of `tiny`."""
    return save(
        tmp_path / "qwen", small_backbone(tied=False).for_generation().float(), build_tiny_tokenizer()
    )


@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["without answers", "with answers"])
def test_an_adapter_becomes_a_policy_that_acts_and_trains_on(
    weight: float, untied: str, make_policy, depth_dataset_root: Path, depth_batch: dict, tmp_path: Path
) -> None:
    policy, *processors = make_policy(
        depth_dataset_root,
        backbone=BackboneConfig(pretrained=untied),
        co_training=CoTrainingConfig(loss_weight=weight),
    )
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    folder = save_adapter(tmp_path / "adapter", adapted, *processors)
    inputs, noise = processors[0](depth_batch), torch.randn(3, 4, ACTION_DIM)
    chunk = adapted.predict_action_chunk(inputs, noise=noise)
    for format in ("policy", "acting"):
        convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / format, format=format))
        acting = GemVLAPolicy.from_pretrained(tmp_path / format)
        assert HEAD not in acting.state_dict()
        torch.testing.assert_close(
            acting.predict_action_chunk(inputs, noise=noise), chunk, rtol=1e-4, atol=1e-5
        )
    trains_on, *_ = load(str(tmp_path / "policy"), depth_dataset_root)
    merged = adapted.merge_and_unload().state_dict()
    assert (HEAD in merged) == (weight > 0)
    assert trains_on.state_dict().keys() == merged.keys()
    for name, tensor in trains_on.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-5, atol=1e-6)


def test_a_policy_that_answered_learns_on_from_depth_alone(
    untied: str, make_gem, make_policy, depth_dataset_root: Path, depth_batch: dict, tmp_path: Path
) -> None:
    gem = save(tmp_path / "gem", *make_gem(stage="joint", backbone=BackboneConfig(pretrained=untied)))
    policy, *processors = make_policy(
        depth_dataset_root,
        backbone=BackboneConfig(pretrained=gem),
        depth=DepthConfig(loss_weight=0.1),
        co_training=CoTrainingConfig(loss_weight=1.0),
    )
    assert HEAD in policy.state_dict()
    folder = save(tmp_path / "policy", policy, *processors)
    again, preprocess, _ = load(folder, depth_dataset_root, co_training=CoTrainingConfig())
    assert again.state_dict().keys() == policy.state_dict().keys() - {HEAD}
    again(preprocess(depth_batch))[0].backward()
