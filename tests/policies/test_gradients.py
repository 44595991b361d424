"""What changes the cost of a gradient and not the gradient: micro-batches, depth on a share of the images."""

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lerobot_gem.validation import ConfigurationError
from tests.conftest import ACTION_DIM
from tests.policies.gem.test_modeling_gem import warm
from tests.policies.gem_vla.test_modeling_gem_vla import grads
from tests.policies.test_depth_loss import BLANK, SAMPLES, Case, make_vla  # noqa: F401 (fixture)

# Answers of none to ten tokens, depth of no, one or two images of a sample.
CASE = Case(wide=True)
WITH_DEPTH = 2 * SAMPLES - len(BLANK)


def draw_by_content(generator, monkeypatch) -> list[int]:
    """Let noise, timesteps and what is dropped depend on the picture alone; returns how many each call paints."""
    loss, calls = generator.loss, []

    def drawn(conditioning: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(targets))
        seeds = (targets.mean(dim=(1, 2, 3)).abs() * 1e4).long()
        noise = 2 * generator.encode(targets).roll(1, dims=1)
        return loss(
            conditioning, mask, targets, noise=noise, timestep_indices=seeds % 1000, drop=seeds % 4 == 0
        )

    monkeypatch.setattr(generator, "loss", drawn)
    return calls


def make(policy_type: str, make_gem, make_vla, make_policy, root):  # noqa: F811
    if policy_type == "gem":
        return make_gem(stage="joint", **CASE.options())
    if policy_type == "gem_vla with depth":
        return make_vla(CASE)
    return make_policy(root, camera_dropout=0.3)


def gradients(policy, inputs: dict, **draws: Tensor) -> tuple[dict[str, Tensor], int]:
    """Gradients, loss and logs, and how many bytes are kept for the backward pass once the loss is there."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    policy.config.built.steps_done = 7
    policy.zero_grad()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, logs = policy.train()(inputs, **draws)
    loss.backward()
    numbers = {name: torch.tensor(value) for name, value in {"loss": loss.item(), **logs}.items()}
    return {**grads(policy), **numbers}, sum(kept.values())


@pytest.mark.parametrize("policy_type", ["gem", "gem_vla", "gem_vla with depth"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    policy_type,
    make_gem,
    make_vla,  # noqa: F811
    make_policy,
    depth_dataset_root,
    monkeypatch,
):
    policy, preprocess, _ = make(policy_type, make_gem, make_vla, make_policy, depth_dataset_root)
    warm(policy)
    inputs, draws = preprocess(CASE.batch(depth_dataset_root)), {}
    if policy.generator is not None:
        draw_by_content(policy.generator, monkeypatch)
    if policy_type != "gem":
        inputs["action_is_pad"] = torch.arange(4).expand(SAMPLES, 4) > torch.tensor(
            [[3], [0], [2], [-1], [3]]
        )
        torch.manual_seed(0)
        draws = {"noise": torch.randn(SAMPLES, 4, ACTION_DIM), "time": torch.rand(SAMPLES)}
    whole, kept = gradients(policy, inputs, **draws)
    policy.batch_size = SAMPLES + 1  # as if this were the last batch of an epoch
    for size in (1, 2):
        policy.config.micro_batch_size = size
        parts, kept_of_parts = gradients(policy, inputs, **draws)
        assert parts.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(parts[name], expected, rtol=1e-3, atol=1e-5, msg=name)
        assert kept_of_parts < 0.3 * kept


def test_what_is_drawn_in_a_micro_batch_is_drawn_again_in_its_backward_pass(make_policy, batch):
    """A chunk's noise decides its gradient: with other noise in the second pass it would not be the loss's."""
    policy, preprocess, _ = make_policy(micro_batch_size=2)
    warm(policy).train()
    inputs = preprocess(batch)
    weight = policy.expert.output.velocity.bias

    def loss() -> Tensor:
        policy.config.built.steps_done = 3
        return policy(inputs)[0]

    loss().backward()
    slope = weight.grad.sum().item()
    with torch.no_grad():
        step = 1e-2
        weight.add_(step)
        above = loss()
        weight.sub_(2 * step)
        below = loss()
    assert ((above - below) / (2 * step)).item() == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize(("share", "micro_batch_size"), [(0.5, None), (0.2, 2)])
def test_depth_on_a_share_of_the_images_is_expected_to_teach_the_same(
    share, micro_batch_size, make_gem, depth_dataset_root, monkeypatch
):
    """Averaged over all the turns of one order, in which each image is drawn equally often, gradients are those of all."""
    policy, preprocess, _ = make_gem(stage="generator", **CASE.options())
    warm(policy)
    inputs = preprocess(CASE.batch(depth_dataset_root))
    calls = draw_by_content(policy.generator, monkeypatch)
    all_images, _ = gradients(policy, inputs)
    assert sum(calls) == WITH_DEPTH == 7

    policy.config.depth.share, policy.config.micro_batch_size = share, micro_batch_size
    policy.batch_size = SAMPLES + 1  # as if this were the last batch of an epoch
    average: dict[str, Tensor] = {}
    for turn in range(WITH_DEPTH):
        monkeypatch.setattr(torch, "randperm", lambda size, turn=turn, **_: torch.arange(size).roll(turn))
        calls.clear()
        drawn, _ = gradients(policy, inputs)
        passes = 1 if micro_batch_size is None else 2  # forward, and again in the backward pass
        assert sum(calls) == passes * {0.2: 2, 0.5: 4}[share]
        assert drawn["images_without_depth"] == len(BLANK)
        for name, values in drawn.items():
            average[name] = average.get(name, 0) + values / WITH_DEPTH
    for name, expected in all_images.items():
        if name != "frames_with_depth":
            torch.testing.assert_close(average[name], expected, rtol=1e-3, atol=1e-5, msg=name)
    policy.eval()  # validation looks at all of them
    calls.clear()
    with torch.no_grad():
        policy(inputs)
    assert sum(calls) == WITH_DEPTH


def test_a_micro_batch_divides_the_batch_but_for_the_last_of_an_epoch(make_policy, batch):
    policy, preprocess, _ = make_policy(micro_batch_size=3)
    inputs = preprocess(batch)
    last = preprocess(
        {key: value[:2] if isinstance(value, Tensor | list) else value for key, value in batch.items()}
    )
    refused = (
        r"micro_batch_size=3 does not divide a batch of 4 samples: expected one of 1, 2, 4 .*--batch_size"
    )
    with pytest.raises(ValueError, match=refused):
        policy.train()(inputs)

    policy.config.micro_batch_size = 4
    policy(inputs)
    policy(last)  # smaller than a whole batch, and than a part

    resumed, preprocess, _ = make_policy(micro_batch_size=3)
    resumed.config.built.steps_done = 7
    resumed.train()(last)  # an epoch's last batch, for all that one knows
    with pytest.raises(ValueError, match=refused):
        resumed(inputs)
    resumed.eval()(inputs)  # a loss alone


def test_a_micro_batch_has_a_sample(make_policy):
    with pytest.raises(ConfigurationError, match="micro_batch_size=0: expected at least 1"):
        make_policy(micro_batch_size=0)
