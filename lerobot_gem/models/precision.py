"""Which weights may be stored in bfloat16 where autocast computes in it, without a number of the result changing."""

from collections.abc import Callable

import torch
from torch import nn

CAST_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TOKEN_TABLE = "embed_tokens"


def is_token_table(name: str, layer: nn.Module) -> bool:
    """Whether a layer is a table of token embeddings; positions are embeddings too, and computed with in float32.

    Args:
        name: Of the layer, in whatever module it is.
        layer: It.
    """
    return isinstance(layer, nn.Embedding) and name.rpartition(".")[2] == _TOKEN_TABLE


def autocast_weights(module: nn.Module) -> set[str]:
    """Names of the weights that autocast casts each time they are used: those of linear layers and convolutions.

    Stored in bfloat16 they give the same numbers. All others take part in float32: norms, embeddings, positions.

    Args:
        module: With weights, or on the meta device.
    """
    return _weights(module, lambda _, layer: isinstance(layer, CAST_LAYERS))


def store_as_autocast_computes(module: nn.Module, dtype: torch.dtype) -> None:
    """Store in a type what autocast casts to it each time it is used, and leave the rest as it is.

    Args:
        module: With weights, or on the meta device.
        dtype: Autocast's.
    """
    for layer in module.modules():
        if isinstance(layer, CAST_LAYERS):
            layer.to(dtype)


def token_tables(module: nn.Module) -> set[str]:
    """Names of the tables of token embeddings, whose rows are taken as they are.

    Stored in bfloat16 one gives the same numbers if all its own are bfloat16's, as those of released weights are.

    Args:
        module: With weights, or on the meta device.
    """
    return _weights(module, is_token_table)


def _weights(module: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> set[str]:
    return {
        f"{name}.{weight}" if name else weight
        for name, layer in module.named_modules()
        if chosen(name, layer)
        for weight, _ in layer.named_parameters(recurse=False)
    }
