"""The layers of the action expert: a modulated transformer that knows no actions (RDT, after DiT).

Every block attends to its own tokens, then to one conditioning sequence; a modulation shifts, scales and gates each of
its three parts. Queries and keys are RMS-normalised per head; there are no rotary positions.

transformers' RMSNorm scales in the input's dtype, after casting back, as the release does; torch's own scales before,
which differs in bfloat16 from what the weights were trained with.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm as RMSNorm

from lerobot_gem.models.conditioning import KeyValue
from lerobot_gem.models.presets import ExpertArchitecture, ExpertConditioning

_TIME_WAVES = 256


class TimeEmbedding(nn.Module):
    """Flow time to a vector: 128 cosines, 128 sines, then an MLP."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = mlp(_TIME_WAVES, hidden_size, layers=2)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, time: Tensor) -> Tensor:
        """Embed flow times.

        Args:
            time: (...) in [0, 1]; 0 is noise, 1 is the action.

        Returns:
            (..., hidden_size) in the dtype of the weights, or of autocast.
        """
        waves = get_timestep_embedding(
            time.flatten(), _TIME_WAVES, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return self.mlp(waves.unflatten(0, time.shape).to(next(self.parameters()).dtype))


class Attention(nn.Module):
    """Grouped-query attention with RMS-normalised queries and keys.

    Used for self-attention (`keys_values(x)` of the same tokens) and for cross-attention, where the caller keeps the
    `KeyValue` of the conditioning, repeated to all heads.

    Args:
        architecture: Sizes.
        projects: Has what makes keys and values of tokens; without, it is given keys and values.
    """

    def __init__(self, architecture: ExpertArchitecture, *, projects: bool = True) -> None:
        super().__init__()
        width, head_size = architecture.hidden_size, architecture.head_size
        kv_width = architecture.num_kv_heads * head_size
        self.head_size = head_size
        self.groups = architecture.num_heads // architecture.num_kv_heads
        self.query = _linear(width, width, bias=False)
        self.key = _linear(width, kv_width, bias=False) if projects else None
        self.value = _linear(width, kv_width, bias=False) if projects else None
        self.output = _linear(width, width, bias=False)
        self.query_norm = RMSNorm(head_size, architecture.norm_eps)
        self.key_norm = RMSNorm(head_size, architecture.norm_eps) if projects else None

    def keys_values(self, tokens: Tensor) -> KeyValue:
        """Project tokens (B, L, hidden_size) to normalised keys and to values."""
        assert self.key is not None and self.value is not None and self.key_norm is not None
        key = self.key_norm(self._split_heads(self.key(tokens)))
        return KeyValue(key.transpose(1, 2), self._split_heads(self.value(tokens)).transpose(1, 2))

    def forward(self, tokens: Tensor, key_value: KeyValue, mask: Tensor | None = None) -> Tensor:
        """Let `tokens` (B, T, hidden_size) attend to `key_value`; `mask` (B, 1, 1, L) is True where allowed."""
        query = self.query_norm(self._split_heads(self.query(tokens))).transpose(1, 2)
        grouped = key_value.key.shape[1] < query.shape[1]
        attended = F.scaled_dot_product_attention(
            query, key_value.key, key_value.value, attn_mask=mask, enable_gqa=grouped
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
    """Self-attention, cross-attention to the conditioning, feed-forward; each shifted, scaled and gated.

    Args:
        architecture: Sizes.
        conditioning: What it is given of the conditioning: tokens that it projects, or keys and values.
    """

    def __init__(self, architecture: ExpertArchitecture, conditioning: ExpertConditioning = "states") -> None:
        super().__init__()
        projects = conditioning == "states"
        width, eps = architecture.hidden_size, architecture.norm_eps
        self.self_attention_norm = RMSNorm(width, eps)
        self.self_attention = Attention(architecture)
        self.cross_attention_norm = RMSNorm(width, eps)
        self.conditioning_norm = RMSNorm(width, eps) if projects else None
        self.cross_attention = Attention(architecture, projects=projects)
        self.feed_forward_norm = RMSNorm(width, eps)
        self.feed_forward = FeedForward(architecture)
        self.modulation = _zero_linear(2 * width, 9 * width)
        # The gates (every third part) start open: closed, as in DiT, the conditioning is not looked at for thousands of
        # samples, and a backbone from scratch learns nothing meanwhile (results/demo/README.md).
        with torch.no_grad():
            self.modulation.bias.view(3, 3, width)[:, 2] = 1.0

    def forward(
        self,
        x: Tensor | None = None,
        modulation: Tensor | None = None,
        key_value: KeyValue | None = None,
        mask: Tensor | None = None,
        *,
        conditioning: Tensor | None = None,
        time_and_state: Tensor | None = None,
    ) -> Tensor | KeyValue:
        """Do one of the block's three works, by what is given.

        `conditioning` is made keys and values once per observation, `time_and_state` once for all denoising steps, `x` is transformed in each
        step. All go through here because sharded training (FSDP) has a block's weights together while its `forward` runs, and
        at no other time.

        Args:
            x: (B, T, hidden_size), to be transformed with the three arguments after it.
            modulation: (B or 1, 9 * hidden_size), shift, scale and gate of the three parts.
            key_value: Of the conditioning.
            mask: (B, 1, 1, L) bool, True where the conditioning may be attended to; None when all may.
            conditioning: (B, L, hidden_size), adapted tokens, to be projected to this block's keys and values, for all heads; or keys
                and values (B, L, 2 * num_kv_heads * head_size), as `KeyValue.side_by_side` lays them.
            time_and_state: (..., 2 * hidden_size), activated, to be projected to this block's modulation.

        Returns:
            Tokens (B, T, hidden_size), the keys and values, or the modulation (..., 9 * hidden_size).
        """
        if conditioning is not None:
            return self._encode_conditioning(conditioning)
        if time_and_state is not None:
            return self.modulation(time_and_state)
        assert x is not None and modulation is not None and key_value is not None
        return self._transform(x, modulation, key_value, mask)

    def _encode_conditioning(self, tokens: Tensor) -> KeyValue:
        if self.conditioning_norm is None:
            key_value = KeyValue.from_side_by_side(tokens, self.cross_attention.head_size)
        else:
            key_value = self.cross_attention.keys_values(self.conditioning_norm(tokens))
        # Grouped heads together with a mask would leave torch nothing but its slow math kernel on CUDA. Repeated here, once
        # per observation, and not in every denoising step.
        return key_value.repeat(self.cross_attention.groups, dim=1)

    def _transform(self, x: Tensor, modulation: Tensor, key_value: KeyValue, mask: Tensor | None) -> Tensor:
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
    """Tokens to velocities."""

    def __init__(self, architecture: ExpertArchitecture, velocity_dim: int) -> None:
        super().__init__()
        width = architecture.hidden_size
        self.norm = RMSNorm(width, architecture.norm_eps)
        self.hidden = _linear(width, 4 * width)
        self.velocity = _zero_linear(4 * width, velocity_dim)
        self.modulation = _zero_linear(2 * width, 2 * width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map (B, T, hidden_size) to (B, T, velocity_dim); `modulation` is (B or 1, 2 * hidden_size)."""
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        return self.velocity(F.silu(self.hidden(_modulate(self.norm(x), shift, scale))))


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


def mlp(in_size: int, hidden_size: int, *, layers: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    stages: list[nn.Module] = [_linear(in_size, hidden_size)]
    for _ in range(layers - 1):
        stages += [nn.SiLU(), _linear(hidden_size, hidden_size)]
    return nn.Sequential(*stages)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
