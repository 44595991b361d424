"""Real-time chunking: LeRobot guides our sampling so that a chunk continues the one before it."""

from collections.abc import Callable

import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from torch import Tensor


def sample_with_rtc(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    num_steps: int,
    processor: RTCProcessor,
    inference_delay: int | None,
    prev_chunk_left_over: Tensor | None,
) -> Tensor:
    """Sample a chunk of actions (B, T, A) under guidance.

    Args:
        velocity: Of noisy actions (B, T, A) at times (B,) in our convention, from 0 (noise) to 1 (actions).
        noise: (B, T, A).
        num_steps: Euler steps.
        processor: LeRobot's guidance.
        inference_delay: Actions executed while this chunk is computed.
        prev_chunk_left_over: The unexecuted rest of the last chunk.
    """

    @torch.no_grad()
    def lerobot_velocity(noisy_actions: Tensor, time: Tensor) -> Tensor:
        # LeRobot's time runs from 1 (noise) to 0 (actions), ours the other way.
        return -velocity(noisy_actions, 1 - time)

    chunk_size = noise.shape[1]
    if prev_chunk_left_over is not None:
        # LeRobot pads the left-over to its own horizon, which may be longer than our chunk.
        prev_chunk_left_over = prev_chunk_left_over[..., :chunk_size, :]
    return euler_integrate(
        lerobot_velocity,
        noise,
        num_steps,
        rtc_processor=processor,
        rtc_enabled=True,
        inference_delay=inference_delay,
        prev_chunk_left_over=prev_chunk_left_over,
        execution_horizon=min(processor.rtc_config.execution_horizon, chunk_size),
    )
