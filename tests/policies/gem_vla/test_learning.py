"""What of a batch is learned: padding, left-out cameras, several draws, noise on the state."""

import pytest
import torch

from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.training.draws import drawing_by
from tests.conftest import ACTION_DIM, SEED
from tests.policies.gem.test_modeling_gem import warm


def test_loss_ignores_actions_past_the_end_of_an_episode(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy)
    inputs = preprocess(batch)
    assert inputs["action_is_pad"][3].tolist() == [False, False, True, True]
    noise, time = torch.randn(4, 4, ACTION_DIM), torch.rand(4)

    loss, _ = policy(inputs, noise=noise, time=time, reduction="none")
    changed = inputs["action"].clone()
    changed[3, 2:] += 10
    padded, _ = policy({**inputs, "action": changed}, noise=noise, time=time, reduction="none")
    # Noisy padded actions still enter self-attention, so only the sample's own error terms are compared exactly.
    assert padded[:3].equal(loss[:3])
    changed[3, 0] += 10
    worse, _ = policy({**inputs, "action": changed}, noise=noise, time=time, reduction="none")
    assert worse[3] > 10 * padded[3]


def test_mean_loss_is_the_mean_of_the_sample_losses(make_policy, batch):
    policy, preprocess, _ = make_policy()
    inputs = preprocess(batch)
    noise, time = torch.randn(4, 4, ACTION_DIM), torch.rand(4)
    per_sample, _ = policy(inputs, noise=noise, time=time, reduction="none")
    loss, logs = policy(inputs, noise=noise, time=time)
    assert per_sample.shape == (4,)
    torch.testing.assert_close(per_sample.mean(), loss)
    assert logs == {"action_loss": loss.item()}
    with pytest.raises(TypeError, match="nosie"):
        policy(inputs, nosie=noise)


def test_cameras_and_instructions_are_left_out_in_training_alone(make_policy, batch, monkeypatch):
    policy, preprocess, _ = make_policy(camera_dropout=0.5, instruction_dropout=0.5)
    warm(policy)
    inputs = preprocess(batch)
    seen = []
    backbone = type(policy.backbone).forward

    def forward(self, tokens, *args, **kwargs):
        seen.append(tokens)
        return backbone(self, tokens, *args, **kwargs)

    monkeypatch.setattr(type(policy.backbone), "forward", forward)

    def loss(step: int) -> float:
        policy.config.built.steps_done = step
        noise, time = torch.zeros(4, 4, ACTION_DIM), torch.full((4,), 0.5)
        return policy(inputs, noise=noise, time=time)[0].item()

    policy.train()
    assert loss(0) == loss(0) != loss(1)
    assert not any(tokens.equal(inputs["observation.language.tokens"]) for tokens in seen)
    for mode in (policy.eval, lambda: policy.predict_action_chunk(inputs)):  # validation; acting
        seen.clear()
        mode()
        assert loss(0) == loss(1)
        assert all(tokens.equal(inputs["observation.language.tokens"]) for tokens in seen) and seen


def test_without_dropout_training_draws_what_it_drew_before(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy).train()
    inputs = preprocess(batch)
    noise, time = torch.zeros(4, 4, ACTION_DIM), torch.full((4,), 0.5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    policy(inputs, noise=noise, time=time)
    assert torch.get_rng_state().equal(before)


def test_state_noise_has_the_asked_ratio_and_only_in_training(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=ExpertConfig(state_noise_snr=20.0))
    state = torch.randn(512, 8)
    policy.train()
    noise = policy.expert._with_noise(state) - state
    ratio = 10 * torch.log10(state.square().mean(0) / noise.square().mean(0))
    torch.testing.assert_close(ratio, torch.full((8,), 20.0), atol=1.0, rtol=0)
    # Whoever shares the batch: a part of it, or another batch, learns with the same noise.
    still = policy.expert._with_noise(torch.zeros(512, 8))
    torch.testing.assert_close(still.square().mean(), torch.tensor(0.01), atol=1e-3, rtol=0)
    policy.eval()
    assert policy.expert._with_noise(state).equal(state)


def test_flow_samples_average_several_draws_and_run_the_backbone_once(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=ExpertConfig(flow_samples=3))
    warm(policy)
    inputs = preprocess(batch)
    drawn, runs = [], []
    policy.expert.action_adaptor.register_forward_hook(lambda _, args, __: drawn.append(args[0]))
    policy.backbone.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    loss, _ = policy(inputs, reduction="none")
    assert len(runs) == 1
    assert drawn[0].shape[0] == 3 * 4

    with drawing_by(SEED, 0, 0, torch.device("cpu")):
        noise, time = torch.randn(12, 4, ACTION_DIM), torch.randn(12).sigmoid()
    one_by_one = [policy(inputs, noise=noise[i::3], time=time[i::3], reduction="none")[0] for i in range(3)]
    torch.testing.assert_close(loss, torch.stack(one_by_one).mean(dim=0))
