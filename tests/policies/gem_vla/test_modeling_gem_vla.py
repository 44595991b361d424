"""The policy's behaviour through LeRobot's own factory and processors."""

import json

import pytest
import torch

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.processing.statistics import Limits
from tests.conftest import ACTION_DIM, CAMERAS, write_dataset
from tests.models.test_backbone import count_calls
from tests.policies.gem.test_modeling_gem import save, warm


def grads(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_frozen_alone(policy, frozen):
    """After a backward pass, each part has all of its gradients, but for the frozen one, which has none."""
    parts = {
        "vision_tower": policy.backbone.vision_tower,
        "language_model": policy.backbone.language_model,
        "expert": policy.expert,
    }
    for name, part in parts.items():
        expected = set() if name == frozen else {n for n, _ in part.named_parameters()}
        assert grads(part).keys() == expected, name


def test_every_part_learns_by_default(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy)
    loss, _ = policy(preprocess(batch))
    loss.backward()
    without = {name for name, _ in policy.named_parameters()} - grads(policy).keys()
    assert not without


@pytest.mark.parametrize("frozen", ["vision_tower", "language_model", "expert"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_does(make_policy, batch, frozen, tmp_path):
    pretrained = save(tmp_path, *make_policy(expert=ExpertConfig()))  # one of random weights can't be frozen
    policy, preprocess, _ = make_policy(
        backbone=BackboneConfig(
            freeze_vision_tower=frozen == "vision_tower", freeze_language_model=frozen == "language_model"
        ),
        expert=ExpertConfig(pretrained=pretrained, freeze=frozen == "expert"),
    )
    warm(policy)
    policy(preprocess(batch))[0].backward()
    assert_frozen_alone(policy, frozen)
    learning = {id(p) for group in policy.get_optim_params() for p in group["params"]}
    assert learning == {id(p) for p in policy.parameters() if p.requires_grad}


def test_learning_rates_per_group(make_policy):
    policy, *_ = make_policy(optimizer_lr=1e-3, optimizer_lr_backbone=1e-4)
    expert, backbone = policy.get_optim_params()
    assert (expert["lr"], backbone["lr"]) == (1e-3, 1e-4)
    assert {id(p) for p in expert["params"]} == {id(p) for p in policy.expert.parameters()}


def test_muon_gets_the_weight_matrices_and_adamw_the_rest(make_policy):
    policy, *_ = make_policy(optimizer_name="muon", optimizer_lr=1e-3, optimizer_lr_backbone=1e-4)
    groups = policy.get_optim_params()
    assert [(group["lr"], group["matrices"]) for group in groups] == [
        (1e-3, True),
        (1e-3, False),
        (1e-4, True),
        (1e-4, False),
    ]
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    chosen = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(chosen) == sorted(names.values())
    matrices = {
        names[id(parameter)] for group in groups if group["matrices"] for parameter in group["params"]
    }
    assert "expert.blocks.0.self_attention.query.weight" in matrices
    assert not any("embed_tokens" in name or "pos_embed" in name or "norm" in name for name in matrices)
    policy.config.get_optimizer_preset().build(groups)


@pytest.mark.parametrize("num_cameras", [1, 2])
@pytest.mark.parametrize("layout", ["separate", "concat"])
def test_any_number_of_cameras_in_both_layouts(make_policy, batch, num_cameras, layout):
    policy, preprocess, _ = make_policy(
        cameras=CamerasConfig(names=list(CAMERAS[:num_cameras]), layout=layout)
    )
    inputs = preprocess(batch)
    loss, _ = policy(inputs)
    assert loss.isfinite()
    spans = (inputs["observation.language.tokens"] == policy.backbone.config.vision_start_token_id).sum(dim=1)
    assert spans.tolist() == [num_cameras if layout == "separate" else 1] * 4


@pytest.mark.parametrize("size", [(48, 64), (96, 128), (250, 333)])
def test_any_image_size(make_policy, batch, size):
    policy, preprocess, _ = make_policy()
    images = {camera: torch.rand(4, 3, *size) for camera in CAMERAS}
    assert policy.predict_action_chunk(preprocess({**batch, **images})).isfinite().all()


def test_without_state(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=ExpertConfig(use_state=False))
    warm(policy)
    noise = torch.randn(4, 4, ACTION_DIM)
    chunk = policy.predict_action_chunk(preprocess(batch), noise=noise)
    other = {**batch, "observation.state": batch["observation.state"] + 1}
    assert policy.predict_action_chunk(preprocess(other), noise=noise).equal(chunk)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_precision_is_the_configured_one_within_accelerates_autocast_and_without(
    make_policy, batch, dtype
):
    """LeRobot runs training within an autocast of its own, and acting, in most of its commands, without any."""
    policy, preprocess, _ = make_policy(dtype=dtype)
    warm(policy)
    inputs = preprocess(batch)
    noise, time = torch.randn(4, 4, ACTION_DIM), torch.rand(4)

    def results(outer: bool) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            losses, _ = policy.train()(inputs, noise=noise, time=time, reduction="none")
            return {"losses": losses, "chunk": policy.predict_action_chunk(inputs, noise=noise)}

    within, without = results(True), results(False)
    policy.config.dtype = {"float32": "bfloat16", "bfloat16": "float32"}[dtype]
    other = results(False)
    for name, values in without.items():
        assert values.dtype == torch.float32
        assert within[name].equal(values), name
        assert not other[name].equal(values), name
        torch.testing.assert_close(other[name], values, rtol=0.05, atol=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in policy.parameters())


def test_gradient_checkpointing_recomputes_and_changes_no_gradient(make_policy, batch):
    noise, time = torch.randn(4, 4, ACTION_DIM), torch.rand(4)
    results, calls = [], []
    for checkpointing in (False, True):
        policy, preprocess, _ = make_policy(backbone=BackboneConfig(gradient_checkpointing=checkpointing))
        warm(policy).train()
        calls.append(count_calls([policy.backbone.model.language_model.layers[0].self_attn]))
        policy(preprocess(batch), noise=noise, time=time)[0].backward()
        results.append(grads(policy))
    assert calls == [[1], [2]]
    plain, recomputed = results
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


@pytest.fixture
def still_policy(make_policy, tmp_path):
    """A function that builds a policy on data whose state stands still in number 2."""
    root = write_dataset(tmp_path / "data")
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    stats["observation.state"]["mean"][2] = stats["observation.state"]["min"][2] = 0.5
    stats["observation.state"]["max"][2], stats["observation.state"]["std"][2] = 0.5, 0.0
    file.write_text(json.dumps(stats))
    return lambda **overrides: make_policy(root=root, **overrides)


def chunks_around(policy, preprocess, batch, *ticks: float) -> list[torch.Tensor]:
    """Chunks for number 2 of the state at 0.5 plus each tick."""
    warm(policy)
    noise, chunks = torch.randn(4, 4, ACTION_DIM), []
    for tick in ticks:
        state = batch["observation.state"].clone()
        state[:, 2] = 0.5 + tick
        chunks.append(
            policy.predict_action_chunk(preprocess({**batch, "observation.state": state}), noise=noise)
        )
    return chunks


def test_a_tick_of_what_stands_still_has_no_effect(still_policy, batch, tmp_path, caplog):
    policy, preprocess, _ = still_policy()
    assert (
        "in the dimension(s) 2: the mean is read there" in caplog.text
        and "--policy.outlier_limit=null" in caplog.text
    )
    still, tick, more = chunks_around(policy, preprocess, batch, 0.0, 1e-6, 1.0)
    assert tick.equal(still) and more.equal(still)
    policy.save_pretrained(tmp_path / "saved")
    assert GemVLAPolicy.from_pretrained(tmp_path / "saved").config.limits == policy.config.limits
    # An older checkpoint goes on as it was trained.
    policy.config.built.is_bounded = False
    assert chunks_around(policy, preprocess, batch, 0.0)[0].isfinite().all()
    assert policy.config.limits == Limits()


def test_the_limit_can_be_turned_off(still_policy, batch):
    policy, preprocess, _ = still_policy(outlier_limit=None)
    still, tick = chunks_around(policy, preprocess, batch, 0.0, 1e-3)
    assert (tick - still).abs().max() > 1


def test_outliers_are_bounded(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy)
    noise = torch.randn(4, 4, ACTION_DIM)
    far, farther = (
        policy.predict_action_chunk(
            preprocess({**batch, "observation.state": torch.full((4, 8), size)}), noise=noise
        )
        for size in (1e3, 1e6)
    )
    assert far.equal(farther)
