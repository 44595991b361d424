"""Real-time chunking: LeRobot guides our sampling so that a chunk continues the one before it."""

from collections.abc import Sequence

import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from torch import Tensor

from lerobot_gem.models.action_expert import Integrator, Velocity


def guided_integrator(
    processor: RTCProcessor, inference_delay: int | None, prev_chunk_left_over: Tensor | None
) -> Integrator:
    """An integrator of the expert's flow under guidance.

    Args:
        processor: LeRobot's guidance.
        inference_delay: Actions executed while this chunk is computed.
        prev_chunk_left_over: The unexecuted rest of the last chunk (B, T, A); None for none.
    """

    def integrate(velocities: Sequence[Velocity], noise: Tensor) -> Tensor:
        steps = iter(velocities)

        @torch.no_grad()
        def lerobot_velocity(noisy_actions: Tensor, _time: Tensor) -> Tensor:
            # LeRobot asks once in each step, from noise on. Its time runs from 1 (noise) to 0 (actions), ours the other way.
            return -next(steps)(noisy_actions)

        chunk_size = noise.shape[1]
        return euler_integrate(
            lerobot_velocity,
            noise,
            len(velocities),
            rtc_processor=processor,
            rtc_enabled=True,
            inference_delay=inference_delay,
            # LeRobot pads the left-over to its own horizon, which may be longer than our chunk.
            prev_chunk_left_over=None
            if prev_chunk_left_over is None
            else prev_chunk_left_over[..., :chunk_size, :],
            execution_horizon=min(processor.rtc_config.execution_horizon, chunk_size),
        )

    return integrate
