"""Checkpoints that act and hold nothing else."""

import json
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.policies.token_options import ActionTokensConfig
from tests.conftest import build_policy
from tests.policies.gem.test_modeling_gem import save, warm
from tests.policies.gem_vla.test_modeling_gem_vla import ACTION_DIM
from tests.policies.test_adapters import save_adapter


@pytest.fixture(params=[True, False], ids=["bfloat16_table", "float32_table"])
def trained(request, make_policy, make_gem, depth_dataset_root: Path, tmp_path: Path) -> Path:
    """A policy that was trained with depth; its table of embeddings has numbers of bfloat16, or others."""
    policy, *processors = make_policy(
        depth_dataset_root,
        dtype="bfloat16",
        backbone=BackboneConfig(pretrained=save(tmp_path / "gem", *make_gem(stage="joint"))),
        depth=DepthConfig(loss_weight=0.1),
    )
    embedding = warm(policy).backbone.language_model.embed_tokens.weight
    if request.param:
        embedding.data = embedding.data.bfloat16().float()
    return Path(save(tmp_path / "trained", policy, *processors))


def converted(source: Path, output_dir: Path) -> Path:
    convert(ConvertConfig(SourceCheckpoint(str(source)), output_dir, format="acting"))
    return output_dir


def test_an_adapter_is_merged(trained: Path, depth_dataset_root: Path, tmp_path: Path, depth_batch: dict):
    config = PreTrainedConfig.from_pretrained(trained)
    config.pretrained_path = trained
    policy, preprocess, postprocess = build_policy(config, depth_dataset_root)
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    adapter = Path(save_adapter(tmp_path / "adapter", adapted, preprocess, postprocess))
    whole = tmp_path / "whole"
    convert(ConvertConfig(SourceCheckpoint(str(adapter)), whole, format="policy"))
    noise, inputs = torch.randn(3, 4, ACTION_DIM), preprocess(dict(depth_batch))
    expected = GemVLAPolicy.from_pretrained(whole).predict_action_chunk(inputs, noise=noise)
    acting = GemVLAPolicy.from_pretrained(converted(adapter, tmp_path / "acting"))
    assert acting.predict_action_chunk(inputs, noise=noise).equal(expected)


def test_it_acts_bit_for_bit_with_less(trained: Path, tmp_path: Path, depth_batch: dict):
    acting = converted(trained, tmp_path / "acting")
    table = "backbone.model.language_model.embed_tokens.weight"
    numbers = open_checkpoint(trained).weights[table].read()
    is_exact = numbers.equal(numbers.bfloat16().float())
    noise = torch.randn(3, 4, ACTION_DIM)
    chunks = []
    for folder in (trained, acting):
        policy = GemVLAPolicy.from_pretrained(folder)
        preprocess, _ = make_pre_post_processors(policy.config, pretrained_path=str(folder))
        chunks.append(policy.predict_action_chunk(preprocess(dict(depth_batch)), noise=noise))
    assert chunks[0].equal(chunks[1])
    weights = open_checkpoint(acting).weights
    assert open_checkpoint(acting).parts == {"backbone", "expert"}
    # Stored in the types that it acts with, so that nothing is cast when it is loaded.
    assert {name: stored.dtype for name, stored in weights.items()} == {
        name: weight.dtype for name, weight in policy.state_dict().items()
    }
    assert weights[table].dtype == (torch.bfloat16 if is_exact else torch.float32)
    in_bfloat16 = sum(stored.num_bytes for stored in weights.values() if stored.dtype == torch.bfloat16)
    rest = sum(stored.num_bytes for name, stored in weights.items() if name != table) - in_bfloat16
    assert in_bfloat16 > 0.9 * (in_bfloat16 + rest)
    before = sum(stored.num_bytes for stored in open_checkpoint(trained).weights.values())
    assert (acting / "model.safetensors").stat().st_size < (0.4 if is_exact else 0.5) * before


def test_what_computes_in_float32_keeps_it(make_policy, tmp_path: Path):
    source = Path(save(tmp_path / "policy", *make_policy()))
    acting = open_checkpoint(converted(source, tmp_path / "acting"))
    weights = open_checkpoint(source).weights
    assert acting.weights.keys() == weights.keys()
    assert all(stored.read().equal(weights[name].read()) for name, stored in acting.weights.items())


def test_a_policy_that_reads_the_embeddings_alone_acts(make_policy, batch: dict, tmp_path: Path):
    policy, *processors = make_policy(expert=ExpertConfig(conditioning_layers=[0, 0, 0]))
    assert policy.backbone.num_layers == 1
    inputs, noise = processors[0](batch), torch.randn(4, 4, ACTION_DIM)
    chunk = warm(policy).predict_action_chunk(inputs, noise=noise)
    source = Path(save(tmp_path / "policy", policy, *processors))
    for folder in (source, converted(source, tmp_path / "acting")):
        loaded = GemVLAPolicy.from_pretrained(folder)
        assert loaded.predict_action_chunk(inputs, noise=noise).equal(chunk)


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(make_policy, tmp_path: Path):
    source = Path(save(tmp_path / "policy", *make_policy()))
    config = json.loads((source / "config.json").read_text())
    config["built"]["action_dim"] += 1
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not fit its config.json:\n  shape of expert.action_adaptor"):
        converted(source, tmp_path / "acting")
    assert not (tmp_path / "acting").exists()


def test_what_does_not_act_is_refused(make_gem, tmp_path: Path):
    source = Path(save(tmp_path / "gem", *make_gem(stage="joint")))
    with pytest.raises(ValueError, match="is a 'gem' checkpoint, which does not act: expected a 'gem_vla'"):
        converted(source, tmp_path / "acting")
    assert not (tmp_path / "acting").exists()


def test_a_checkpoint_of_version_0_1_is_refused(make_policy, tmp_path: Path):
    source = Path(save(tmp_path / "policy", *make_policy()))
    config = json.loads((source / "config.json").read_text())
    del config["built"]
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was written by version 0.1: expected a checkpoint of this version"):
        converted(source, tmp_path / "acting")


@pytest.mark.parametrize("act", ["flow", "tokens"])
def test_a_policy_that_learned_tokens_keeps_what_its_way_of_acting_needs(
    make_policy, batch: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture, act: str
):
    policy, *processors = make_policy(
        action_tokens=ActionTokensConfig(loss_weight=1.0, vocabulary=64, insulate=True, act=act)
    )
    inputs = processors[0](batch)
    noise = torch.randn(4, 4, ACTION_DIM)
    chunk = warm(policy).predict_action_chunk(inputs, noise=noise)
    acting = converted(Path(save(tmp_path / "policy", policy, *processors)), tmp_path / "acting")
    loaded = GemVLAPolicy.from_pretrained(acting)
    assert loaded.backbone.is_complete == (act == "tokens")
    assert ("what writes its action tokens is left out of" in caplog.text) == (act == "flow")
    assert loaded.predict_action_chunk(inputs, noise=noise).equal(chunk)
    assert not loaded.config.learns_tokens and bool(loaded.config.built.action_turn) == (act == "tokens")


def test_training_on_from_it_says_what_it_lacks(
    trained: Path, make_policy, make_gem, depth_dataset_root: Path, tmp_path: Path, caplog
):
    acting = converted(trained, tmp_path / "acting")
    config = PreTrainedConfig.from_pretrained(acting)
    config.pretrained_path = acting
    policy, *processors = build_policy(config, depth_dataset_root)
    said = f"--policy.path={acting} was converted to act: its weights are those of bfloat16"
    assert [said in record.getMessage() for record in caplog.records].count(True) == 1
    caplog.clear()
    goes_on = PreTrainedConfig.from_pretrained(save(tmp_path / "on", policy, *processors))
    assert not goes_on.built.acts_alone

    acted = GemVLAPolicy.from_pretrained(trained)
    acted.save_pretrained(tmp_path / "acted")  # as it was loaded
    assert PreTrainedConfig.from_pretrained(tmp_path / "acted").built.acts_alone

    with pytest.raises(
        ValueError, match="has only the layers that it acts with: expected the 'gem' checkpoint"
    ):
        make_gem(stage="joint", backbone=BackboneConfig(pretrained=str(acting)))
