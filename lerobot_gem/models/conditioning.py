"""What the action expert reads of an observation, made once: keys and values for the cross-attention of each of its blocks.

The expert projects them from states of decoder layers, as the release does; or it takes the layers' own, as the paper does: keys,
normalised and rotated, and values, without anything between (`decoder_layers.py`).

States (`backbone.py`) follow one of two conventions:

| state | `layer_inputs` (default) | `hidden_states` |
|---|---|---|
| 0 | embeddings with image features | the same |
| i | what decoder layer i reads: output of layer i-1 plus its deep-stack feature | output of layer i-1, without the feature |
| last | what the final norm reads | after the final norm |
| equals | `output_hidden_states` of transformers 4.57.3, which the release pins | the same of transformers 5 |
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class KeyValue(NamedTuple):
    """Keys and values of one attention.

    Args:
        key: (B, num_kv_heads or num_heads, L, head_size), already normalised.
        value: Of the same shape.
    """

    key: Tensor
    value: Tensor

    def repeat(self, times: int, dim: int) -> "KeyValue":
        """Each entry along `dim` stands `times` times in a row."""
        if times == 1:
            return self
        return KeyValue(self.key.repeat_interleave(times, dim), self.value.repeat_interleave(times, dim))

    def side_by_side(self) -> Tensor:
        """One vector for each token (B, L, 2 * heads * head_size): its keys, head by head, then its values."""
        return torch.cat(self, dim=1).transpose(1, 2).flatten(2)

    @classmethod
    def from_side_by_side(cls, tokens: Tensor, head_size: int) -> "KeyValue":
        """What `side_by_side` made one tensor of."""
        key, value = tokens.unflatten(-1, (-1, head_size)).transpose(1, 2).chunk(2, dim=1)
        return cls(key, value)


@dataclass(frozen=True)
class Conditioning:
    """What the expert needs to know of one observation, made once.

    Args:
        blocks: Keys and values (B, num_heads, L, head_size) of each block's cross-attention, in order.
        mask: (B, 1, 1, L) bool, True where a token may be attended to; None when all may.
    """

    blocks: tuple[KeyValue, ...]
    mask: Tensor | None

    def repeat(self, times: int) -> "Conditioning":
        """The conditioning of a batch in which each observation stands `times` times in a row."""
        if times == 1:
            return self
        return Conditioning(
            blocks=tuple(block.repeat(times, dim=0) for block in self.blocks),
            mask=None if self.mask is None else self.mask.repeat_interleave(times, 0),
        )
