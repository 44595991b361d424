"""How weights are stored in training: what autocast computes in bfloat16 need not be float32 in memory.

| stored | trainable | frozen |
|---|---|---|
| linear and convolutional layers, token embedding | `weights` | what the policy computes in (`dtype`) |
| norms, positions and the like: under 1 % | float32 | float32 |

The second row are what autocast computes in float32, and what sets the type of the residual streams. So the result is
that of float32 weights with autocast, bit for bit, wherever the weights are numbers of bfloat16, as released ones are.
"""

from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from lerobot_gem.models.precision import CAST_LAYERS, is_token_table

_WATCHED: WeakSet[nn.Module] = WeakSet()


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


def watch_rounding(policy: nn.Module) -> None:
    """Let torch raise a ValueError where an optimiser would round the updates of a policy's bfloat16 weights away.

    LeRobot asks a policy for its optimiser only where its presets are used, and tells it of no other one.

    Args:
        policy: To be trained, in bfloat16.
    """
    _WATCHED.add(policy)
    _hook()


@cache
def _hook() -> None:
    register_optimizer_step_pre_hook(_check_rounding)


def _check_rounding(optimizer: Optimizer, *_: Any) -> None:
    """Raise a ValueError unless the optimiser rounds stochastically, or steps none of the watched weights."""
    if getattr(optimizer, "bf16_stochastic_round", False):  # torchao's optimisers
        return
    stepped = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    for policy in _WATCHED:
        if any(
            weight.dtype == torch.bfloat16 and weight.requires_grad and id(weight) in stepped
            for weight in policy.parameters()
        ):
            raise ValueError(
                f"weights='bfloat16' with the optimiser {type(optimizer).__name__}, whose updates are mostly too small for bfloat16 and would "
                "be rounded away: expected --policy.optimizer_name=adamw_8bit, which rounds stochastically, without --optimizer.type and "
                "--use_policy_training_preset=false. Or --policy.weights=float32."
            )
