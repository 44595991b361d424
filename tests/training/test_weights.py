"""How weights are stored: fewer bytes, and the numbers that autocast computes from float32 weights."""

import copy

import pytest
import torch
from torch import nn

from lerobot_gem.policies.base_options import BackboneConfig
from lerobot_gem.training.stages import part_of
from lerobot_gem.training.weights import store_weights
from lerobot_gem.validation import ConfigurationError

FROZEN = BackboneConfig(freeze_vision_tower=True, freeze_language_model=True)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(4, 2)
        self.positions = nn.Embedding(4, 2)
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.LayerNorm(2)
        self.proj = nn.Linear(2, 2)


def test_layers_that_autocast_casts_are_stored_in_their_type():
    small = Small()
    small.proj.requires_grad_(False)
    store_weights(small, trainable=torch.float64, frozen=torch.bfloat16)
    types = {name: weight.dtype for name, weight in small.named_parameters()}
    assert types == {
        "embed_tokens.weight": torch.float64,
        "positions.weight": torch.float32,
        "conv.weight": torch.float64,
        "conv.bias": torch.float64,
        "norm.weight": torch.float32,
        "norm.bias": torch.float32,
        "proj.weight": torch.bfloat16,
        "proj.bias": torch.bfloat16,
    }


def results(policy, inputs: dict) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    loss, _ = policy.train()(inputs)
    loss.backward()
    grads = {name: weight.grad for name, weight in policy.named_parameters() if weight.grad is not None}
    return {"loss": loss, **grads}


def check_equal_to_float32(policy, inputs: dict, tolerance: float = 0.0) -> None:
    twin = copy.deepcopy(policy).float()
    stored, plain = results(policy, inputs), results(twin, inputs)
    assert stored.keys() == plain.keys()
    for name, values in stored.items():
        assert values.isfinite().all()
        expected = plain[name].to(values.dtype).float()
        assert (values.float() - expected).norm() <= tolerance * expected.norm(), name
    assert any(values.abs().sum() > 0 for values in stored.values())


def test_an_expert_learns_the_same_from_a_backbone_in_bfloat16(make_policy, batch):
    policy, preprocess, _ = make_policy(dtype="bfloat16", backbone=FROZEN)
    nn.init.normal_(policy.expert.output.velocity.weight)
    matrices = [weight for weight in policy.backbone.parameters() if weight.ndim > 1]
    assert sum(weight.dtype == torch.bfloat16 for weight in matrices) >= len(matrices) - 1  # but positions
    assert {weight.dtype for weight in policy.expert.parameters()} == {torch.float32}
    check_equal_to_float32(policy, preprocess(batch))


@pytest.mark.parametrize("stage", ["connector", "joint"])
def test_depth_and_language_are_learned_the_same(stage, make_gem, depth_batch):
    policy, preprocess, _ = make_gem(dtype="bfloat16", stage=stage)
    frozen = {
        part_of(name): weight.dtype
        for name, weight in policy.named_parameters()
        if not weight.requires_grad and weight.ndim == 4
    }
    assert frozen["autoencoder"] == torch.bfloat16
    check_equal_to_float32(policy, preprocess(depth_batch))


def test_trainable_weights_in_bfloat16_compute_what_float32_would(make_policy, batch):
    policy, preprocess, _ = make_policy(dtype="bfloat16", weights="bfloat16", optimizer_name="adamw_8bit")
    nn.init.normal_(policy.expert.output.velocity.weight)
    assert policy.expert.output.velocity.weight.dtype == torch.bfloat16
    # A token's gradient is summed over its places in the prompts, in bfloat16.
    check_equal_to_float32(policy, preprocess(batch), tolerance=0.02)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    before = policy.expert.output.velocity.weight.detach().clone()
    optimizer.step()
    assert not policy.expert.output.velocity.weight.equal(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "float16"}, "weights='float16' is unknown"),
        (
            {"weights": "bfloat16", "dtype": "bfloat16"},
            "optimizer_name='adamw', whose updates .* expected optimizer_name='adamw_8bit'",
        ),
        (
            {"weights": "bfloat16", "dtype": "bfloat16", "optimizer_name": "muon"},
            "optimizer_name='muon', whose updates",
        ),
        (
            {"weights": "bfloat16", "optimizer_name": "adamw_8bit"},
            "dtype='float32': expected dtype='bfloat16'",
        ),
        (
            {"optimizer_lr": 0.0},
            r"optimizer_lr=0.0 with optimizer_lr_backbone=None: nothing would be trained",
        ),
    ],
)
def test_what_cannot_be_trained_is_an_error(options, message, make_policy):
    with pytest.raises(ConfigurationError, match=message):
        make_policy(**options)[0].config.get_optimizer_preset()


@pytest.mark.parametrize("plain", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimiser_that_rounds_updates_away_is_refused_at_its_first_step(plain, make_policy, batch):
    """LeRobot's way with --use_policy_training_preset=false, which asks the policy for nothing but parameters."""
    policy, preprocess, _ = make_policy(dtype="bfloat16", weights="bfloat16", optimizer_name="adamw_8bit")
    policy(preprocess(batch))[0].backward()
    message = f"weights='bfloat16' with the optimiser {plain.__name__}, .*--policy.optimizer_name=adamw_8bit"
    with pytest.raises(ValueError, match=message):
        plain(policy.parameters(), lr=1e-3).step()
    policy.config.get_optimizer_preset().build(policy.parameters()).step()
    other = Small().bfloat16()
    plain(other.parameters(), lr=1e-3).step()
    policy.requires_grad_(False)  # as LoRA freezes it
    plain(policy.parameters(), lr=1e-3).step()


def test_what_fsdp_shards_is_of_one_type(make_policy, monkeypatch):
    """accelerate sets the variable for the processes that it starts; FSDP refuses blocks of two types."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    policy, *_ = make_policy(dtype="bfloat16", backbone=FROZEN, optimizer_name="adamw_8bit")
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}
    with pytest.raises(ConfigurationError, match="adamw_8bit' under FSDP.* expected optimizer_name='adamw'"):
        policy.config.get_optimizer_preset()


def test_muon_has_no_whole_matrices_under_fsdp(make_policy, monkeypatch):
    policy, *_ = make_policy(optimizer_name="muon")
    policy.config.get_optimizer_preset()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigurationError, match="muon' under FSDP.* expected optimizer_name='adamw'"):
        policy.config.get_optimizer_preset()
