"""LeRobot's guidance on our flow, whose time runs the other way."""

import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor

from lerobot_gem.inference.real_time_chunking import guided_integrator

TARGET = torch.linspace(-1, 1, 12).reshape(1, 4, 3)


def velocity(actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Of a flow that ends at TARGET: time is 0 at noise."""
    return (TARGET - actions) / (1 - time).clamp(min=1e-3).reshape(-1, 1, 1)


def processor() -> RTCProcessor:
    return RTCProcessor(RTCConfig(enabled=True, execution_horizon=10))


def test_without_a_chunk_before_it_is_eulers_way_to_the_same_end():
    chunk = guided_integrator(processor(), None, None)(velocity, torch.randn(1, 4, 3), 5)
    torch.testing.assert_close(chunk, TARGET, rtol=1e-4, atol=1e-4)


def test_a_chunk_before_it_pulls_even_where_lerobot_padded_it_beyond_ours():
    left_over = torch.cat([TARGET + 0.5, torch.zeros(1, 6, 3)], dim=1)
    noise = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    chunk = guided_integrator(processor(), 2, left_over)(velocity, noise, 5)
    assert chunk.shape == TARGET.shape
    pulled = (chunk - TARGET)[:, :2].mean()
    assert 0.05 < pulled < 0.6
