"""LeRobot's guidance on our flow, whose time runs the other way."""

from functools import partial

import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor

from lerobot_gem.inference.real_time_chunking import guided_integrator
from lerobot_gem.models.action_expert import Velocity

TARGET = torch.linspace(-1, 1, 12).reshape(1, 4, 3)


def velocity(actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Of a flow that ends at TARGET: time is 0 at noise."""
    return (TARGET - actions) / (1 - time).clamp(min=1e-3).reshape(-1, 1, 1)


def velocities(steps: int) -> list[Velocity]:
    return [partial(velocity, time=torch.tensor([step / steps])) for step in range(steps)]


def processor() -> RTCProcessor:
    return RTCProcessor(RTCConfig(enabled=True, execution_horizon=10))


def test_without_a_chunk_before_it_is_eulers_way_to_the_same_end():
    chunk = guided_integrator(processor(), None, None)(velocities(5), torch.randn(1, 4, 3))
    torch.testing.assert_close(chunk, TARGET, rtol=1e-4, atol=1e-4)


def test_a_chunk_before_it_pulls_even_where_lerobot_padded_it_beyond_ours():
    left_over = torch.cat([TARGET + 0.5, torch.zeros(1, 6, 3)], dim=1)
    noise = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    chunk = guided_integrator(processor(), 2, left_over)(velocities(5), noise)
    assert chunk.shape == TARGET.shape
    pulled = (chunk - TARGET)[:, :2].mean()
    assert 0.05 < pulled < 0.6


def test_a_policys_guided_chunk_keeps_the_frozen_prefix(make_policy, batch):
    """The actions that are executed while a chunk is computed are frozen; measured 0.008 of the normalised range."""
    chunk_size, delay = 8, 4
    policy, preprocess, _ = make_policy(chunk_size=chunk_size)
    observation = preprocess({key: value[:1] for key, value in batch.items() if "action" not in key})
    random = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, chunk_size, policy.config.built.action_dim, generator=random)
    left_over = policy.predict_action_chunk(observation, noise=first)
    unguided = policy.predict_action_chunk(observation, noise=second)
    policy.config.rtc_config = RTCConfig(enabled=True, execution_horizon=chunk_size)
    policy.init_rtc_processor()
    guided = policy.predict_action_chunk(
        observation, noise=second, inference_delay=delay, prev_chunk_left_over=left_over
    )

    def error(chunk: torch.Tensor) -> float:
        return (chunk - left_over)[:, :delay].abs().mean().item()

    assert error(guided) < 0.01
    assert error(unguided) > 0.5
