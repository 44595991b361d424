"""How weights are stored in training: what autocast computes in bfloat16 need not be float32 in memory.

| stored | trainable | frozen |
|---|---|---|
| linear and convolutional layers, token embedding | `weights` | what the policy computes in (`dtype`) |
| norms, positions and the like: under 1 % | float32 | float32 |

The second row are what autocast computes in float32, and what sets the type of the residual streams. So the result is
that of float32 weights with autocast, bit for bit, wherever the weights are numbers of bfloat16, as released ones are.
"""

import torch
from torch import nn

from lerobot_gem.models.precision import CAST_LAYERS, is_token_table


def store_weights(policy: nn.Module, *, trainable: torch.dtype, frozen: torch.dtype) -> None:
    """Store the weights of a policy as the table says.

    Args:
        policy: Its parameters are frozen or not already.
        trainable: Type of the layers that are trained.
        frozen: Type of the others.
    """
    for name, layer in policy.named_modules():
        if isinstance(layer, CAST_LAYERS) or is_token_table(name, layer):
            is_trainable = any(weight.requires_grad for weight in layer.parameters(recurse=False))
            layer.to(trainable if is_trainable else frozen)
