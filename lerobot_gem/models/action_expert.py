"""The action expert of GEM-VLA: a flow-matching transformer over action tokens (RDT).

Every block attends to the action tokens themselves and then to one hidden state of the backbone. Time and robot
state enter through adaptive layer norms. Compatible with the release, whose quirks are kept where trained weights
depend on them:

* time runs from 0 (noise) to 1 (action) and is embedded as it is, not multiplied by 1000;
* register tokens follow the action tokens, and positions are counted anew in each of the two groups;
* queries and keys are RMS-normalised per head; there are no rotary positions;
* the final layer's activation is SiLU.

Different on purpose: the conditioning is projected to keys and values once per observation instead of once per
denoising step, and keys and values have separate weights (the release interleaves them in one; `checkpoints/expert.py`
converts).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lerobot_gem.models.presets import ExpertArchitecture, TimeDistribution

_TIME_FREQUENCIES = 128
_MAX_PERIOD = 10_000.0


class KeyValue(NamedTuple):
    """Keys and values of one block's cross-attention.

    Args:
        key: (B, num_kv_heads, L, head_size), already normalised.
        value: (B, num_kv_heads, L, head_size).
    """

    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What the expert needs to know of one observation, projected once.

    Args:
        blocks: keys and values of each block's cross-attention, in order.
        mask: (B, 1, 1, L) bool, True where a token may be attended to; None when all may.
    """

    blocks: tuple[KeyValue, ...]
    mask: Tensor | None

    def repeat(self, times: int) -> "Conditioning":
        """The conditioning of a batch in which each observation stands `times` times in a row."""
        if times == 1:
            return self
        return Conditioning(
            blocks=tuple(
                KeyValue(block.key.repeat_interleave(times, 0), block.value.repeat_interleave(times, 0))
                for block in self.blocks
            ),
            mask=None if self.mask is None else self.mask.repeat_interleave(times, 0),
        )


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in float32 and scaled in the input's dtype.

    `torch.nn.RMSNorm` scales before it casts back, which differs in bfloat16 from what the weights were trained with.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class TimeEmbedding(nn.Module):
    """Flow time to a vector: 128 cosines, 128 sines, then an MLP."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = _mlp(2 * _TIME_FREQUENCIES, hidden_size, layers=2)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, time: Tensor) -> Tensor:
        """Embed flow times.

        Args:
            time: (...) in [0, 1]; 0 is noise, 1 is the action.

        Returns:
            (..., hidden_size) in the dtype of the weights.
        """
        exponents = (
            torch.arange(_TIME_FREQUENCIES, dtype=torch.float32, device=time.device) / _TIME_FREQUENCIES
        )
        angles = time[..., None].float() * torch.exp(-math.log(_MAX_PERIOD) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(waves.to(next(self.parameters()).dtype))


class Attention(nn.Module):
    """Grouped-query attention with RMS-normalised queries and keys.

    Used for self-attention (`keys_values(x)` of the same tokens) and for cross-attention, where the caller keeps the
    `KeyValue` of the conditioning.
    """

    def __init__(self, architecture: ExpertArchitecture) -> None:
        super().__init__()
        width, head_size = architecture.hidden_size, architecture.head_size
        kv_width = architecture.num_kv_heads * head_size
        self.head_size = head_size
        self.groups = architecture.num_heads // architecture.num_kv_heads
        self.query = _linear(width, width, bias=False)
        self.key = _linear(width, kv_width, bias=False)
        self.value = _linear(width, kv_width, bias=False)
        self.output = _linear(width, width, bias=False)
        self.query_norm = RMSNorm(head_size, architecture.norm_eps)
        self.key_norm = RMSNorm(head_size, architecture.norm_eps)

    def keys_values(self, tokens: Tensor) -> KeyValue:
        """Project tokens (B, L, hidden_size) to normalised keys and to values."""
        key = self.key_norm(self._split_heads(self.key(tokens)))
        return KeyValue(key.transpose(1, 2), self._split_heads(self.value(tokens)).transpose(1, 2))

    def forward(self, tokens: Tensor, key_value: KeyValue, mask: Tensor | None = None) -> Tensor:
        """Let `tokens` (B, T, hidden_size) attend to `key_value`; `mask` (B, 1, 1, L) is True where allowed."""
        query = self.query_norm(self._split_heads(self.query(tokens))).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            query, key_value.key, key_value.value, attn_mask=mask, enable_gqa=self.groups > 1
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_size))


class FeedForward(nn.Module):
    """Gated feed-forward layer (SwiGLU)."""

    def __init__(self, architecture: ExpertArchitecture) -> None:
        super().__init__()
        width, inner = architecture.hidden_size, architecture.feed_forward_size
        self.gate = _linear(width, inner, bias=False)
        self.up = _linear(width, inner, bias=False)
        self.down = _linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class ExpertBlock(nn.Module):
    """Self-attention, cross-attention to the conditioning, feed-forward; each shifted, scaled and gated."""

    def __init__(self, architecture: ExpertArchitecture) -> None:
        super().__init__()
        width, eps = architecture.hidden_size, architecture.norm_eps
        self.self_attention_norm = RMSNorm(width, eps)
        self.self_attention = Attention(architecture)
        self.cross_attention_norm = RMSNorm(width, eps)
        self.conditioning_norm = RMSNorm(width, eps)
        self.cross_attention = Attention(architecture)
        self.feed_forward_norm = RMSNorm(width, eps)
        self.feed_forward = FeedForward(architecture)
        self.modulation = _zero_linear(2 * width, 9 * width)
        # The gates (every third part) start open: closed, as in DiT, the conditioning is not looked at for thousands of
        # samples, and a backbone from scratch learns nothing meanwhile (docs/demo.md).
        with torch.no_grad():
            self.modulation.bias.view(3, 3, width)[:, 2] = 1.0

    def encode_conditioning(self, tokens: Tensor) -> KeyValue:
        """Project adapted conditioning tokens (B, L, hidden_size) to this block's keys and values."""
        return self.cross_attention.keys_values(self.conditioning_norm(tokens))

    def forward(self, x: Tensor, modulation: Tensor, key_value: KeyValue, mask: Tensor | None) -> Tensor:
        """Transform action tokens.

        Args:
            x: (B, T, hidden_size).
            modulation: (B or 1, 9 * hidden_size), this block's modulation of time and state.
            key_value: this block's entry of `Conditioning.blocks`.
            mask: `Conditioning.mask`.
        """
        of_self, of_cross, of_feed_forward = modulation[:, None].chunk(3, dim=-1)
        shift, scale, gate = of_self.chunk(3, dim=-1)
        tokens = _modulate(self.self_attention_norm(x), shift, scale)
        x = x + gate * self.self_attention(tokens, self.self_attention.keys_values(tokens))
        shift, scale, gate = of_cross.chunk(3, dim=-1)
        tokens = _modulate(self.cross_attention_norm(x), shift, scale)
        x = x + gate * self.cross_attention(tokens, key_value, mask)
        shift, scale, gate = of_feed_forward.chunk(3, dim=-1)
        tokens = _modulate(self.feed_forward_norm(x), shift, scale)
        return x + gate * self.feed_forward(tokens)


class VelocityOutput(nn.Module):
    """Action tokens to velocities."""

    def __init__(self, architecture: ExpertArchitecture, action_dim: int) -> None:
        super().__init__()
        width = architecture.hidden_size
        self.norm = RMSNorm(width, architecture.norm_eps)
        self.hidden = _linear(width, 4 * width)
        self.velocity = _zero_linear(4 * width, action_dim)
        self.modulation = _zero_linear(2 * width, 2 * width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map (B, T, hidden_size) to (B, T, action_dim); `modulation` is (B or 1, 2 * hidden_size)."""
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        return self.velocity(F.silu(self.hidden(_modulate(self.norm(x), shift, scale))))


class ActionExpert(nn.Module):
    """Predicts the flow velocity of an action chunk from the backbone's hidden states and the robot's state.

    Args:
        architecture: sizes of the transformer.
        conditioning_dim: width D of the backbone's hidden states.
        action_dim: components A of one action.
        state_dim: components of the robot state, or None for an expert that gets no state; the learned state
            embedding alone then takes its place.
        chunk_size: actions T in a chunk.

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
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.conditioning_dim = conditioning_dim
        self.action_dim = action_dim
        self.state_dim = state_dim
        self.chunk_size = chunk_size

        width, registers = architecture.hidden_size, architecture.num_register_tokens
        self.conditioning_adaptor = _mlp(conditioning_dim, width, layers=2)
        self.action_adaptor = _mlp(action_dim, width, layers=3)
        self.state_adaptor = None if state_dim is None else _mlp(state_dim, width, layers=3)
        self.time_embedding = TimeEmbedding(width)
        self.register_tokens = nn.Parameter(0.02 * torch.randn(1, registers, width))
        self.position_embedding = nn.Parameter(_position_table(chunk_size, registers, width))
        self.state_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(ExpertBlock(architecture) for _ in range(architecture.depth))
        self.output = VelocityOutput(architecture, action_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the expert computes in."""
        return self.position_embedding.dtype

    def encode_conditioning(self, states: Tensor, mask: Tensor | None) -> Conditioning:
        """Project the backbone's hidden states to the keys and values of every block.

        Args:
            states: (B, depth, L, D), state i for block i; or (B, L, D), shared by all blocks.
            mask: (B, L), True or 1 where a token is real; None when all are.

        Raises:
            ValueError: the number of states is not the number of blocks.
        """
        if states.ndim == 4 and states.shape[1] != len(self.blocks):
            raise ValueError(
                f"The action expert has {len(self.blocks)} blocks but got {states.shape[1]} conditioning states; "
                "ask the backbone for one state per block, or pass one state (B, L, D) for all."
            )
        adapted = self.conditioning_adaptor(states.to(self.dtype))
        per_block = adapted.unbind(1) if states.ndim == 4 else [adapted] * len(self.blocks)
        blocks = cast(Iterable[ExpertBlock], self.blocks)
        return Conditioning(
            blocks=tuple(
                block.encode_conditioning(tokens) for block, tokens in zip(blocks, per_block, strict=True)
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
            conditioning: of the same observations, from `encode_conditioning`.
            state: (B, state_dim), or None if the expert has no state input.

        Returns:
            (B, T, A) in the dtype of the weights.

        Raises:
            ValueError: the chunk's shape or the state does not fit the expert.
        """
        return self._velocity(noisy_actions, self._modulations(time, state), conditioning)

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
            conditioning: of the same observations.
            state: (B, state_dim) or None.
            noise: (B, T, A); drawn from a standard normal if None.
            time: (B,) in [0, 1]; drawn from `time_distribution` if None.
            time_distribution: `logit_normal` (0, 1) as in the release, or `uniform` as in the paper.

        Returns:
            (B, T, A), in float32 for bfloat16 weights too.

        Raises:
            ValueError: unknown time distribution; or as `forward`.
        """
        if noise is None:
            noise = torch.randn_like(actions)
        if time is None:
            time = sample_time(actions.shape[0], time_distribution, actions.device)
        share = time.to(actions.dtype)[:, None, None]
        velocity = self(share * actions + (1 - share) * noise, time, conditioning, state)
        return (velocity - (actions - noise).float()).square()

    def sample(
        self, conditioning: Conditioning, state: Tensor | None, noise: Tensor, num_steps: int
    ) -> Tensor:
        """Integrate the flow from noise to an action chunk with Euler steps.

        Time and actions accumulate in the dtype of the weights, as in the release.

        Args:
            conditioning: of the observations.
            state: (B, state_dim) or None.
            noise: (B, T, A), standard normal.
            num_steps: number of Euler steps, at least 1.

        Returns:
            (B, T, A) in the dtype of the weights.

        Raises:
            ValueError: `num_steps` is below 1; or as `forward`.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} must be at least 1.")
        times = [torch.zeros(1, dtype=self.dtype, device=noise.device)]
        for _ in range(num_steps - 1):
            times.append(times[-1] + 1 / num_steps)
        # More than half of the weights are modulations, and they depend on time and state alone: one pass over
        # them serves all steps.
        of_all_steps = [modulation.unbind(0) for modulation in self._modulations(torch.stack(times), state)]
        actions = noise.to(self.dtype)
        for modulations in zip(*of_all_steps, strict=True):
            actions = actions + self._velocity(actions, modulations, conditioning) / num_steps
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
        return [layer.modulation(activated) for layer in (*self.blocks, self.output)]

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
        ValueError: unknown distribution.
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


def _linear(in_size: int, out_size: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_size, out_size, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _zero_linear(in_size: int, out_size: int) -> nn.Linear:
    layer = nn.Linear(in_size, out_size)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _mlp(in_size: int, hidden_size: int, *, layers: int) -> nn.Sequential:
    stages: list[nn.Module] = [_linear(in_size, hidden_size)]
    for _ in range(layers - 1):
        stages += [nn.SiLU(), _linear(hidden_size, hidden_size)]
    return nn.Sequential(*stages)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _sinusoids(positions: Tensor, size: int) -> Tensor:
    """Positions (N,) to (N, size): sines first, then cosines."""
    half = size // 2
    frequencies = _MAX_PERIOD ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _position_table(chunk_size: int, num_registers: int, size: int) -> Tensor:
    """Initial positions (1, chunk_size + num_registers, size): place within the group plus index of the group."""
    groups = [
        _sinusoids(torch.arange(length), size) + _sinusoids(torch.tensor([index]), size)
        for index, length in enumerate((chunk_size, num_registers))
    ]
    return torch.cat(groups)[None].float()
