"""The action expert of GEM-VLA: a flow-matching transformer over action tokens (RDT).

Every block attends to the action tokens themselves and then to one hidden state of the backbone, or to keys and values of one of
the backbone's attentions (the paper's way). Time and robot
state enter through adaptive layer norms. Compatible with the release, whose quirks are kept where trained weights
depend on them:

* time runs from 0 (noise) to 1 (action) and is embedded as it is, not multiplied by 1000;
* register tokens follow the action tokens, and positions are counted anew in each of the two groups;
* queries and keys are RMS-normalised per head; there are no rotary positions;
* the final layer's activation is SiLU.

Different on purpose: the conditioning is projected to keys and values once per observation instead of once per
denoising step, and keys and values have separate weights (the release interleaves them in one; `checkpoints/release_expert.py`
converts).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from torch import Tensor, nn

from lerobot_gem.models.action_expert_layers import ExpertBlock, TimeEmbedding, VelocityOutput, mlp
from lerobot_gem.models.conditioning import Conditioning
from lerobot_gem.models.presets import ExpertArchitecture, ExpertConditioning, TimeDistribution

# The velocity of noisy actions (B, T, A) at one time of a flow.
Velocity = Callable[[Tensor], Tensor]
# Integrates a flow: its velocities at the beginnings of the steps, which take equal time, and the noise (B, T, A).
Integrator = Callable[[Sequence[Velocity], Tensor], Tensor]


@dataclass(frozen=True)
class FlowSettings:
    """How the expert learns its flow.

    Args:
        time_distribution: `logit_normal` (0, 1) as in the release, `uniform` as in the paper, or `beta` (1, 1.5), which
            favours noise (pi0, arXiv 2410.24164, appendix B).
        draws: Noises and times per observation in training, for one pass of the backbone (CogACT, arXiv 2411.19650).
        state_noise_snr: Signal-to-noise ratio in dB of the noise on the state in training, for a number of power 1, as standardised ones
            are; None is no noise.
    """

    time_distribution: TimeDistribution = "logit_normal"
    draws: int = 1
    state_noise_snr: float | None = None


class ActionExpert(nn.Module):
    """Predicts the flow velocity of an action chunk from what it reads of the backbone and from the robot's state.

    Args:
        architecture: Sizes of the transformer.
        conditioning_dim: Width D of what is read of the backbone.
        action_dim: Components A of one action.
        state_dim: Components of the robot state, or None for an expert that gets no state; the learned state
            embedding alone then takes its place.
        chunk_size: Actions T in a chunk.
        flow: How it learns.
        conditioning: What is read of the backbone: states, which the expert projects; or keys and values, as they are.

    Raises:
        ValueError: Keys and values are not as wide as the expert's heads.

    Position and state embeddings start as in the release. The other weights start as in DiT (Xavier, zero biases,
    modulations and the last layer zero), but with open gates: the velocity begins as zero, the blocks as ordinary ones.
    """

    def __init__(
        self,
        architecture: ExpertArchitecture,
        *,
        conditioning_dim: int,
        action_dim: int,
        state_dim: int | None,
        chunk_size: int,
        flow: FlowSettings = FlowSettings(),  # noqa: B008, frozen
        conditioning: ExpertConditioning = "states",
    ) -> None:
        super().__init__()
        if conditioning == "key_values" and conditioning_dim != architecture.key_value_dim:
            heads, head_size = architecture.num_kv_heads, architecture.head_size
            raise ValueError(
                f"The action expert expects keys and values of {heads} heads of {head_size} but conditioning_dim={conditioning_dim} is "
                f"not 2 * {heads} * {head_size}."
            )
        self.architecture = architecture
        self.conditioning_dim = conditioning_dim
        self.action_dim = action_dim
        self.state_dim = state_dim
        self.chunk_size = chunk_size
        self.flow = flow

        width, registers = architecture.hidden_size, architecture.num_register_tokens
        self.conditioning_adaptor = (
            None if conditioning == "key_values" else mlp(conditioning_dim, width, layers=2)
        )
        self.action_adaptor = mlp(action_dim, width, layers=3)
        self.state_adaptor = None if state_dim is None else mlp(state_dim, width, layers=3)
        self.time_embedding = TimeEmbedding(width)
        self.register_tokens = nn.Parameter(0.02 * torch.randn(1, registers, width))
        self.position_embedding = nn.Parameter(_position_table(chunk_size, registers, width))
        self.state_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            ExpertBlock(architecture, conditioning) for _ in range(architecture.depth)
        )
        self.output = VelocityOutput(architecture, action_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the expert computes in where autocast does not say otherwise."""
        return self.position_embedding.dtype

    def encode_conditioning(self, states: Tensor, mask: Tensor | None) -> Conditioning:
        """Make what is read of the backbone the keys and values of every block.

        Args:
            states: (B, depth, L, D), state i for block i; or (B, L, D), shared by all blocks. Keys and values likewise, as
                `KeyValue.side_by_side` lays them.
            mask: (B, L), True or 1 where a token is real; None when all are.

        Raises:
            ValueError: The number of states is not the number of blocks.
        """
        if states.ndim == 4 and states.shape[1] != len(self.blocks):
            raise ValueError(
                f"The action expert has {len(self.blocks)} blocks but got {states.shape[1]} conditioning states; "
                "ask the backbone for one state per block, or pass one state (B, L, D) for all."
            )
        adapted = states.to(self.dtype)
        if self.conditioning_adaptor is not None:
            adapted = self.conditioning_adaptor(adapted)
        per_block = adapted.unbind(1) if states.ndim == 4 else [adapted] * len(self.blocks)
        return Conditioning(
            blocks=tuple(
                block(conditioning=tokens) for block, tokens in zip(self.blocks, per_block, strict=True)
            ),
            mask=None if mask is None else mask.bool()[:, None, None, :],
        )

    def forward(
        self, noisy_actions: Tensor, time: Tensor, conditioning: Conditioning, state: Tensor | None
    ) -> Tensor:
        """Predict the flow velocity (action minus noise).

        Args:
            noisy_actions: (B, T, A).
            time: (B,) or (1,) in [0, 1]; 0 is noise, 1 is the action.
            conditioning: Of the same observations, from `encode_conditioning`.
            state: (B, state_dim), or None if the expert has no state input.

        Returns:
            (B, T, A) in the dtype of the weights, or of autocast.

        Raises:
            ValueError: The chunk's shape or the state does not fit the expert.
        """
        return self._velocity(noisy_actions, self._modulations(time, state), conditioning)

    def loss(
        self,
        actions: Tensor,
        is_pad: Tensor | None,
        conditioning: Conditioning,
        state: Tensor | None,
        *,
        noise: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Tensor:
        """Flow-matching loss of demonstrated chunks.

        Args:
            actions: (B, T, A), the demonstrated chunks.
            is_pad: (B, T), True past the end of an episode, where there is no loss; None for no such frame.
            conditioning: Of the same observations.
            state: (B, state_dim) or None.
            noise: (B, T, A); drawn if None, `flow.draws` times per observation unless `time` is given.
            time: (B,) in [0, 1], 0 is noise; drawn if None.

        Returns:
            (B,), in float32 for bfloat16 weights too; 0 where all frames of a chunk are padding.

        Raises:
            ValueError: As `forward`.
        """
        draws = self.flow.draws if noise is None and time is None else 1
        state = self._with_noise(state)
        error = self.flow_matching_error(
            actions.repeat_interleave(draws, dim=0),
            conditioning.repeat(draws),
            None if state is None else state.repeat_interleave(draws, dim=0),
            noise=noise,
            time=time,
            time_distribution=self.flow.time_distribution,
        )
        error = error.unflatten(0, (-1, draws)).mean(dim=1)
        valid = torch.ones_like(error[..., 0]) if is_pad is None else (~is_pad).float()
        return (error.mean(dim=-1) * valid).sum(dim=-1) / valid.sum(dim=-1).clamp(min=1)

    def _with_noise(self, state: Tensor | None) -> Tensor | None:
        """The state with noise of `flow.state_noise_snr`, in training."""
        snr = self.flow.state_noise_snr
        if state is None or snr is None or not self.training:
            return state
        # Not of the power in this batch: a part of it, or a batch of one, would learn another thing.
        return state + 10 ** (-snr / 20) * torch.randn_like(state)

    def flow_matching_error(
        self,
        actions: Tensor,
        conditioning: Conditioning,
        state: Tensor | None,
        *,
        noise: Tensor | None = None,
        time: Tensor | None = None,
        time_distribution: TimeDistribution = "logit_normal",
    ) -> Tensor:
        """Squared error of the predicted velocity, per element; the caller masks and reduces it.

        Args:
            actions: (B, T, A), the demonstrated chunk.
            conditioning: Of the same observations.
            state: (B, state_dim) or None.
            noise: (B, T, A); drawn from a standard normal if None.
            time: (B,) in [0, 1]; drawn from `time_distribution` if None.
            time_distribution: `logit_normal` (0, 1) as in the release, `uniform` as in the paper, or `beta` (1, 1.5),
                which favours noise.

        Returns:
            (B, T, A), in float32 for bfloat16 weights too.

        Raises:
            ValueError: Unknown time distribution; or as `forward`.
        """
        if noise is None:
            noise = torch.randn_like(actions)
        if time is None:
            time = sample_time(actions.shape[0], time_distribution, actions.device)
        share = time.to(actions.dtype)[:, None, None]
        velocity = self(share * actions + (1 - share) * noise, time, conditioning, state)
        return (velocity - (actions - noise).float()).square()

    def sample(
        self,
        conditioning: Conditioning,
        state: Tensor | None,
        noise: Tensor | None = None,
        *,
        num_steps: int,
        integrate: Integrator | None = None,
    ) -> Tensor:
        """Integrate the flow from noise to an action chunk.

        Time and actions accumulate in the dtype of the weights, as in the release.

        Args:
            conditioning: Of the observations.
            state: (B, state_dim) or None.
            noise: (B, T, A), standard normal; drawn if None.
            num_steps: Number of Euler steps, at least 1.
            integrate: Another integrator than Euler's own, such as one that real-time chunking guides.

        Returns:
            (B, T, A) in the dtype of the weights.

        Raises:
            ValueError: `num_steps` is below 1; or as `forward`.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} must be at least 1.")
        if noise is None:
            key = conditioning.blocks[0].key
            noise = torch.randn(len(key), self.chunk_size, self.action_dim, device=key.device)
        times = [torch.zeros(1, dtype=self.dtype, device=noise.device)]
        for _ in range(num_steps - 1):
            times.append(times[-1] + 1 / num_steps)
        # More than half of the weights are modulations, and they depend on time and state alone: one pass over
        # them serves all steps.
        of_all_steps = [modulation.unbind(0) for modulation in self._modulations(torch.stack(times), state)]
        velocities = [
            partial(self._velocity, modulations=of_step, conditioning=conditioning)
            for of_step in zip(*of_all_steps, strict=True)
        ]
        if integrate is not None:
            return integrate(velocities, noise)
        actions = noise.to(self.dtype)
        for velocity in velocities:
            actions = actions + velocity(actions) / num_steps
        return actions

    def _modulations(self, time: Tensor, state: Tensor | None) -> list[Tensor]:
        """Modulations of the blocks in order, then of the output.

        Args:
            time: (..., B or 1).
            state: (B, state_dim) or None.

        Returns:
            One tensor (..., B or 1, 9 * hidden_size) per block and one (..., B or 1, 2 * hidden_size).
        """
        time_token = self.time_embedding(time)
        state_token = self.state_embedding[0] + self._adapted_state(state)
        shape = torch.broadcast_shapes(time_token.shape, state_token.shape)
        activated = F.silu(torch.cat([time_token.expand(shape), state_token.expand(shape)], dim=-1))
        return [
            *(block(time_and_state=activated) for block in self.blocks),
            self.output.modulation(activated),
        ]

    def _adapted_state(self, state: Tensor | None) -> Tensor | float:
        if self.state_adaptor is None:
            if state is not None:
                raise ValueError(
                    "This action expert was built without a state input (state_dim=None); pass state=None."
                )
            return 0.0
        if state is None or state.ndim != 2 or state.shape[-1] != self.state_dim:
            got = "none" if state is None else f"one of shape {tuple(state.shape)}"
            raise ValueError(
                f"The action expert expects a robot state of shape (B, {self.state_dim}) but got {got}."
            )
        return self.state_adaptor(state.to(self.dtype))

    def _velocity(
        self, noisy_actions: Tensor, modulations: Sequence[Tensor], conditioning: Conditioning
    ) -> Tensor:
        if noisy_actions.shape[1:] != (self.chunk_size, self.action_dim):
            raise ValueError(
                f"The action expert expects chunks of shape (B, {self.chunk_size}, {self.action_dim}) "
                f"but got {tuple(noisy_actions.shape)}."
            )
        x = self.action_adaptor(noisy_actions.to(self.dtype))
        x = torch.cat([x, self.register_tokens.expand(len(x), -1, -1)], dim=1) + self.position_embedding
        *block_modulations, output_modulation = modulations
        for block, modulation, key_value in zip(
            self.blocks, block_modulations, conditioning.blocks, strict=True
        ):
            x = block(x, modulation, key_value, conditioning.mask)
        return self.output(x[:, : self.chunk_size], output_modulation)


def sample_time(
    batch_size: int, distribution: TimeDistribution, device: torch.device | None = None
) -> Tensor:
    """Draw flow times (batch_size,) in float32.

    Raises:
        ValueError: Unknown distribution.
    """
    if distribution == "logit_normal":
        return torch.randn(batch_size, device=device).sigmoid()
    if distribution == "uniform":
        return torch.rand(batch_size, device=device)
    if distribution == "beta":
        # Beta(1, 1.5), by inversion of its distribution function 1 - (1 - t) ** 1.5.
        return 1 - torch.rand(batch_size, device=device) ** (1 / 1.5)
    raise ValueError(
        f"Unknown time distribution {distribution!r}; choose one of {', '.join(map(repr, get_args(TimeDistribution)))}."
    )


def _position_table(chunk_size: int, num_registers: int, size: int) -> Tensor:
    """Initial positions (1, chunk_size + num_registers, size): place within the group plus index of the group."""

    def sinusoids(positions: Tensor) -> Tensor:
        return get_1d_sincos_pos_embed_from_grid(size, positions, output_type="pt")

    groups = [
        sinusoids(torch.arange(length)) + sinusoids(torch.tensor([index]))
        for index, length in enumerate((chunk_size, num_registers))
    ]
    return torch.cat(groups)[None].float()
