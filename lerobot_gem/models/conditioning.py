"""What the action expert reads of an observation: states of the backbone, projected once to keys and values.

The states are those of some decoder layers (`backbone.py`), in one of two conventions:

| state | `layer_inputs` (default) | `hidden_states` |
|---|---|---|
| 0 | embeddings with image features | the same |
| i | what decoder layer i reads: output of layer i-1 plus its deep-stack feature | output of layer i-1, without the feature |
| last | what the final norm reads | after the final norm |
| equals | `output_hidden_states` of transformers 4.57.3, which the release pins | the same of transformers 5 |
"""

from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True)
class Conditioning:
    """What the expert needs to know of one observation, projected once.

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
