"""torchao's AdamW in 8 bits: what LeRobot saves and resumes, and that it learns what float32 learns."""

import pytest
import torch
from lerobot.optim.optimizers import load_optimizer_state, save_optimizer_state
from lerobot.optim.schedulers import load_scheduler_state, save_scheduler_state
from torch import nn

from lerobot_gem.training.low_bit import AdamW8bitConfig

WIDTH = 64


def make(dtype: torch.dtype = torch.bfloat16, lr: float = 0.01) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, WIDTH).to(dtype)
    return layer, AdamW8bitConfig(lr=0.1).build([{"params": list(layer.parameters()), "lr": lr}])


def step(layer: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(8, WIDTH, dtype=layer.weight.dtype, generator=generator)
    (layer(inputs) - inputs.flip(1)).float().square().mean().backward()
    optimizer.step()


def test_the_update_is_adamws_but_for_eight_bits():
    layer, optimizer = make(torch.float32)
    twin, _ = make(torch.float32)
    adamw = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0)
    before = twin.weight.detach().clone()
    for seed in range(5):
        step(layer, optimizer, seed)
        step(twin, adamw, seed)
    moved = (twin.weight - before).abs().mean()
    assert (layer.weight - twin.weight).abs().mean() < 0.05 * moved
    torch.testing.assert_close(layer.bias, twin.bias, rtol=0, atol=1e-3)


def test_moments_take_a_byte_and_small_ones_stay_in_float32():
    layer, optimizer = make()
    step(layer, optimizer, seed=0)
    state = optimizer.state_dict()["state"]
    for moment in ("exp_avg", "exp_avg_sq"):
        assert state[0][moment]["codes"].dtype == torch.uint8
        assert state[0][moment]["scale"].numel() == WIDTH * WIDTH / 256
        assert state[1][moment].dtype == torch.float32


def test_bfloat16_weights_follow_updates_below_their_precision():
    """1 + 2e-4 is 1 in bfloat16, so that rounding to the nearest would never move; stochastic rounding gets there."""
    weight = nn.Parameter(torch.ones(WIDTH, WIDTH, dtype=torch.bfloat16))
    optimizer = AdamW8bitConfig().build([{"params": [weight], "lr": 2e-4}])
    torch.manual_seed(0)
    for _ in range(50):
        weight.grad = -torch.ones_like(weight)
        optimizer.step()
    assert (torch.ones(1, dtype=torch.bfloat16) + 2e-4).item() == 1
    assert weight.dtype == torch.bfloat16
    assert weight.float().mean().item() == pytest.approx(1 + 50 * 2e-4, abs=1e-3)


def test_an_update_leaves_the_generator_alone():
    layer, optimizer = make()
    before = torch.get_rng_state()
    step(layer, optimizer, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_goes_on_from_what_lerobot_saved(tmp_path):
    """Whatever torch's generator has drawn meanwhile: so the processes of a run, too, round alike."""
    layer, optimizer = make()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    step(layer, optimizer, seed=1)
    scheduler.step()
    save_optimizer_state(optimizer, tmp_path)
    save_scheduler_state(scheduler, tmp_path)
    resumed, fresh = make(lr=0.3)
    fresh_scheduler = torch.optim.lr_scheduler.LambdaLR(fresh, lambda step: 0.5**step)
    resumed.load_state_dict(layer.state_dict())
    load_optimizer_state(fresh, tmp_path)
    load_scheduler_state(fresh_scheduler, tmp_path)
    assert [group["lr"] for group in fresh.param_groups] == [0.005]
    step(layer, optimizer, seed=2)
    torch.manual_seed(1)  # as the seed that a new DataLoader draws
    step(resumed, fresh, seed=2)
    torch.testing.assert_close(resumed.weight, layer.weight, rtol=0, atol=0)
    torch.testing.assert_close(resumed.bias, layer.bias, rtol=0, atol=0)
