"""Decoder layers that give the keys and values of their attention, which an action expert may read."""

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer, apply_rotary_pos_emb

from lerobot_gem.models.conditioning import KeyValue

Given = Literal["output", "key_value", "both"]


class KeyValueLayer(Qwen3VLTextDecoderLayer):
    """transformers' layer, which also gives its keys and values: normalised and rotated, as a cache of transformers holds them.

    All that is asked of it goes through `forward`: gradient checkpointing and sharded training (FSDP) see nothing else.
    """

    @classmethod
    def replace(cls, layers: Iterable[Qwen3VLTextDecoderLayer]) -> None:
        """Make transformers' layers of these."""
        for layer in layers:
            layer.__class__ = cls

    def keep_projections_alone(self) -> None:
        """Drop all that keys and values do not need; from then on nothing else can be asked for."""
        attention = self.self_attn
        del self.mlp, self.post_attention_layernorm, attention.q_proj, attention.q_norm, attention.o_proj

    def forward(self, hidden_states: Tensor, *, gives: Given = "output", **kwargs: Any) -> Any:
        """Run the layer, or as much of it as is asked for.

        Args:
            hidden_states: (B, L, D).
            gives: What to return.
            **kwargs: transformers' arguments; `position_embeddings` is always among them.

        Returns:
            The output (B, L, D), the keys and values, or both.
        """
        if gives == "output":
            return super().forward(hidden_states, **kwargs)
        if gives == "key_value":
            return self._project(hidden_states, kwargs["position_embeddings"])
        kept = _Kept()
        return super().forward(hidden_states, **kwargs | {"past_key_values": kept}), kept.key_value

    def _project(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> KeyValue:
        attention, tokens = self.self_attn, self.input_layernorm(hidden_states)
        heads = (-1, attention.head_dim)
        key = attention.k_norm(attention.k_proj(tokens).unflatten(-1, heads)).transpose(1, 2)
        value = attention.v_proj(tokens).unflatten(-1, heads).transpose(1, 2)
        return KeyValue(apply_rotary_pos_emb(key, key, *position_embeddings)[1], value)


class _Kept:
    """A cache of one attention in one pass: hands back what it is given, and keeps it."""

    key_value: KeyValue

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> KeyValue:
        self.key_value = KeyValue(key, value)
        return self.key_value
