"""One-step distillation: a student's one Euler step from noise to actions learns where a teacher's many steps end.

As in the release (`RDTDistillRunner`): the student's chunk is noise plus its velocity at time 0, and its loss the mean squared
distance to the teacher's chunk from the same noise. No demonstrated action takes part, so that frames past the end of an
episode count as all others do.
"""

from torch import Tensor

from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.conditioning import Conditioning


def one_step_loss(
    expert: ActionExpert, taught: Tensor, noise: Tensor, conditioning: Conditioning, state: Tensor | None
) -> Tensor:
    """How far the student's chunks are from the teacher's.

    Args:
        expert: The student's.
        taught: (B, N, T, A), the teacher's chunks from N draws of noise for each observation.
        noise: (B, N, T, A), those draws.
        conditioning: Of the observations, by the student's backbone.
        state: (B, state_dim) or None.

    Returns:
        (B,), in float32 for bfloat16 weights too.
    """
    return (
        (sample_each(expert, noise, conditioning, state, 1).float() - taught.float()).square().mean((1, 2, 3))
    )


def sample_each(
    expert: ActionExpert, noise: Tensor, conditioning: Conditioning, state: Tensor | None, num_steps: int
) -> Tensor:
    """Chunks (B, N, T, A) from N draws of noise for each observation.

    Args:
        expert: What samples.
        noise: (B, N, T, A).
        conditioning: Of the observations.
        state: (B, state_dim) or None.
        num_steps: Euler steps.
    """
    draws = noise.shape[1]
    chunks = expert.sample(
        conditioning.repeat(draws),
        None if state is None else state.repeat_interleave(draws, dim=0),
        noise.flatten(0, 1),
        num_steps=num_steps,
    )
    return chunks.unflatten(0, (-1, draws))
