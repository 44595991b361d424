"""What LoRA adapts follows the stage and the freeze flags, and learns."""

import logging

import pytest
import torch
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.token_options import ActionTokensConfig
from lerobot_gem.training.lora import check_adaptable, lora_targets
from lerobot_gem.training.stages import PARTS, STAGES, part_of
from tests.policies.gem.test_modeling_gem import gem_checkpoint  # noqa: F401 (fixture)

IN_FULL = {"expert", "connector"}


def trained(adapted) -> dict[str, set[str]]:
    """What has a gradient, by part and by how it is trained."""
    found: dict[str, set[str]] = {"low rank": set(), "full": set()}
    for name, parameter in adapted.base_model.model.named_parameters():
        if parameter.grad is not None:
            found["low rank" if "lora_" in name else "full"].add(part_of(name))
    return found


@pytest.fixture
def make_stage(make_gem, make_policy, gem_checkpoint, depth_dataset_root):  # noqa: F811
    """A policy of a stage on a pretrained backbone and generator, with its preprocessor."""

    def build(stage: str, **backbone):
        chosen = BackboneConfig(pretrained=gem_checkpoint, **backbone)
        if stage == "action":
            depth = DepthConfig(loss_weight=0.1)
            return make_policy(depth_dataset_root, backbone=chosen, depth=depth)[:2]
        return make_gem(stage=stage, backbone=chosen)[:2]

    return build


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_the_stage_trains_is_adapted_or_trained_in_full(stage, make_stage, depth_batch):
    policy, preprocess = make_stage(stage)
    layers = {
        name
        for name, module in policy.named_modules()
        if isinstance(module, nn.Linear) and part_of(f"{name}.weight") in STAGES[stage].trainable - IN_FULL
    }
    targets = lora_targets(policy, policy.config.trainable_parts, policy.random_parts)["target_modules"]
    assert targets == DUMMY_TARGET_MODULES if stage == "connector" else set(targets) == layers
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2}).train()
    adapted(preprocess(depth_batch))[0].backward()
    found = trained(adapted)
    assert found["full"] == STAGES[stage].trainable & IN_FULL
    assert found["low rank"] == STAGES[stage].trainable - IN_FULL
    groups = [parameter for group in adapted.get_optim_params() for parameter in group["params"]]
    assert {id(p) for p in groups} == {id(p) for p in adapted.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"r": 0}, r"--peft.r=0: expected a rank from 1 to \d+, the longest side"),
        ({"r": 100_000}, r"--peft.r=100000: expected a rank from 1 to"),
        ({"lora_alpha": 0}, r"--peft.lora_alpha=0: expected more than 0"),
        ({"method_type": "qlora"}, r"--peft.method_type=QLORA: expected LORA"),
        (
            {"target_modules": ["q_proj", "nosuch"]},
            r"--peft.target_modules has \['nosuch'\], .*such as .*q_proj",
        ),
        (
            {"init_type": "eva"},
            r"--peft.init_type=eva begins from batches of data, .*expected no --peft.init_type",
        ),
    ],
)
def test_what_peft_cannot_make_is_an_error_that_names_the_option(options, said, make_stage):
    with pytest.raises(ValueError, match=said):
        make_stage("joint")[0].wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2} | options)


def test_what_is_trained_is_said(make_stage, make_policy, gem_checkpoint, caplog):  # noqa: F811
    caplog.set_level(logging.INFO)
    policy, _ = make_stage("action")
    options = {"method_type": "lora", "r": 2, "init_type": "orthogonal", "target_modules": ["o_proj"]}
    policy.wrap_with_peft(peft_cli_overrides=options)
    (said,) = (record.getMessage() for record in caplog.records if "LoRA:" in record.getMessage())
    layers = policy.backbone.config.text_config.num_hidden_layers
    assert f"in {layers} layers, which are otherwise frozen; trained in full: expert (" in said
    assert "LoRA adapts no layer" not in caplog.text
    backbone = BackboneConfig(pretrained=gem_checkpoint, freeze_vision_tower=True, freeze_language_model=True)
    make_policy(backbone=backbone)[0].wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    assert "LoRA adapts no layer" in caplog.text


def test_freeze_flags_are_obeyed(make_stage, depth_batch):
    policy, preprocess = make_stage("action", freeze_vision_tower=True)
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2}).train()
    adapted(preprocess(depth_batch))[0].backward()
    assert trained(adapted) == {"low rank": {"language_model", "transformer"}, "full": IN_FULL}


def test_the_gradient_is_at_least_half_of_that_of_full_training(make_stage, depth_batch):
    norms = []
    for lora in (True, False):
        policy, preprocess = make_stage("action")
        model = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 16}) if lora else policy
        model.train()
        inputs = preprocess(dict(depth_batch))
        norms.append(0.0)
        for seed in range(4):
            model.config.built.steps_done = seed
            model.zero_grad()
            model(inputs)[0].backward()
            norms[-1] += nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert norms[0] > 0.5 * norms[1]


@pytest.mark.slow
def test_the_loss_of_full_training_is_reached_within_half_as_many_steps_more(make_stage, depth_batch):
    """The demo's curves are in results/lora/; this learns one batch by heart."""
    losses = []
    for lora, steps in ((False, 40), (True, 60)):
        policy, preprocess = make_stage("action")
        model = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA"}) if lora else policy
        model.train()
        inputs = preprocess(dict(depth_batch))
        optimizer = torch.optim.AdamW(model.get_optim_params(), lr=1e-3)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        for step in range(steps):
            model.config.built.steps_done = step % 4
            loss, _ = model(inputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] <= losses[0]


def test_rank_alone_sets_the_strength(make_stage):
    policy, _ = make_stage("action")
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 4, "lora_alpha": None})
    assert adapted.peft_config["default"].lora_alpha == 8


def test_the_replaced_weights_are_not_kept(make_stage):
    policy, _ = make_stage("action")
    size = sum(p.numel() for p in policy.expert.parameters())
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 4})
    assert sum(p.numel() for name, p in adapted.named_parameters() if ".expert." in name) == size


def test_random_weights_are_no_base(make_policy, make_stage):
    policy, *_ = make_policy()
    with pytest.raises(
        ValueError, match=r"the backbone's are random: expected --policy\.backbone\.pretrained"
    ):
        policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    assert make_stage("action")[0].random_parts == {"expert"}


def test_frozen_random_weights_would_be_lost(make_policy, gem_checkpoint):  # noqa: F811
    policy, *_ = make_policy(
        backbone=BackboneConfig(pretrained=gem_checkpoint),
        expert=ExpertConfig(freeze=True),
        action_tokens=ActionTokensConfig(loss_weight=1.0, vocabulary=64, insulate=True, act="tokens"),
    )
    with pytest.raises(ValueError, match="The weights of expert are random and frozen"):
        policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    check_adaptable(PARTS, {"expert"})


@pytest.mark.parametrize("in_full", [[], ["state_adaptor"]])
def test_random_weights_that_nobody_saves_would_be_lost(make_stage, in_full):
    policy, _ = make_stage("action")
    options = {"method_type": "LORA", "r": 2, "full_training_modules": in_full}
    with pytest.raises(ValueError, match=r"leaves out expert, whose weights are random"):
        policy.wrap_with_peft(peft_cli_overrides=options)
