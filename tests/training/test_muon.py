"""Muon for weight matrices, AdamW for the rest, as one optimiser that LeRobot can save and resume."""

import pytest
import torch
from lerobot.optim.optimizers import load_optimizer_state, save_optimizer_state
from torch import nn

from lerobot_gem.training.muon import MATRICES, BatchedMuon, MuonConfig


def make(seed: int = 0) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    layer = nn.Linear(6, 4)
    groups = [
        {"params": [layer.weight], MATRICES: True},
        {"params": [layer.bias], MATRICES: False, "lr": 0.5},
    ]
    return layer, MuonConfig(lr=0.1).build(groups)


def step(layer: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    (layer(torch.randn(8, 6)) - torch.randn(8, 4)).square().mean().backward()
    optimizer.step()


def test_each_group_is_updated_as_by_torchs_own_optimisers():
    layer, optimizer = make()
    twin, _ = make()
    muon = torch.optim.Muon([twin.weight], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([twin.bias], lr=0.5, weight_decay=0.0)
    for seed in range(3):
        step(layer, optimizer, seed)
        torch.manual_seed(seed)
        twin.zero_grad()
        (twin(torch.randn(8, 6)) - torch.randn(8, 4)).square().mean().backward()
        muon.step()
        adamw.step()
    torch.testing.assert_close(layer.weight, twin.weight, rtol=0, atol=0)
    torch.testing.assert_close(layer.bias, twin.bias, rtol=0, atol=0)


def test_weights_without_groups_are_refused():
    """As LeRobot gives them with --use_policy_training_preset=false."""
    with pytest.raises(ValueError, match=r"gem_muon was given weights .*--policy.optimizer_name=muon"):
        MuonConfig(lr=0.1).build(nn.Linear(6, 4).parameters())


def test_matrices_of_one_shape_are_updated_together_as_torch_updates_each():
    torch.manual_seed(0)
    shapes = [(4, 6), (6, 4), (4, 6), (5, 5), (4, 6), (6, 4)]
    ours, theirs = ([nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    options: dict = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = BatchedMuon(ours, **options), torch.optim.Muon(theirs, **options)
    for _ in range(3):
        for own, other in zip(ours[:-1], theirs[:-1], strict=True):  # the last one has no gradient
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-3)
    assert optimizers[0].state_dict()["state"].keys() == optimizers[1].state_dict()["state"].keys()


def test_a_scheduler_drives_both_groups():
    layer, optimizer = make()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    step(layer, optimizer, seed=1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    for parameter, old in zip(layer.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old, rtol=0, atol=0)
    assert scheduler.base_lrs == [0.1, 0.5]


def test_training_goes_on_from_what_lerobot_saved(tmp_path):
    layer, optimizer = make()
    step(layer, optimizer, seed=1)
    save_optimizer_state(optimizer, tmp_path)
    resumed, fresh = make(seed=5)
    resumed.load_state_dict(layer.state_dict())
    load_optimizer_state(fresh, tmp_path)
    step(layer, optimizer, seed=2)
    step(resumed, fresh, seed=2)
    torch.testing.assert_close(resumed.weight, layer.weight, rtol=0, atol=0)
    torch.testing.assert_close(resumed.bias, layer.bias, rtol=0, atol=0)


@pytest.mark.parametrize("matrices", [True, False])
def test_one_kind_of_group_alone_is_enough(matrices):
    layer = nn.Linear(6, 4, bias=False)
    optimizer = MuonConfig().build([{"params": [layer.weight], MATRICES: matrices}])
    before = layer.weight.detach().clone()
    step(layer, optimizer, seed=0)
    assert not torch.equal(layer.weight, before)
