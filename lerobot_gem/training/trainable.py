"""Who is trainable, and how the optimiser groups it."""

import logging
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from lerobot_gem.training.muon import MATRICES
from lerobot_gem.training.stages import FREEZE_FLAGS, PARTS, part_of

logger = logging.getLogger(__name__)


def freeze_all_but(policy: nn.Module, trainable: Collection[str]) -> None:
    """Make some parts of a policy trainable (`stages.PARTS`), and nothing else.

    Raises:
        ValueError: The policy has none of these parts, so that nothing would be trained.
    """
    parts = set()
    for name, parameter in policy.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in trainable)
        parts.add(part)
    if not parts & set(trainable):
        flags = [f"--policy.{flag}=false" for flag, frozen in FREEZE_FLAGS.items() if frozen & parts]
        raise ValueError(
            f"Nothing is trainable: the policy has {_in_words(parts)}, but stage and freeze flags train {_in_words(trainable)}. "
            f"Expected a part in common: {' or '.join(flags)}."
        )


def _in_words(parts: Collection[str]) -> str:
    return ", ".join(part for part in PARTS if part in parts) or "no part"


def log_parts(policy: nn.Module) -> None:
    """Log the size of each part of a policy (`stages.PARTS`), and whether it is trained."""
    sizes: dict[str, int] = {}
    trainable = set()
    for name, parameter in policy.named_parameters():
        part = part_of(name)
        sizes[part] = sizes.get(part, 0) + parameter.numel()
        if parameter.requires_grad:
            trainable.add(part)
    for part, size in sizes.items():
        logger.info(
            f"{part}: {size / 1e6:.2f} M parameters, {'trainable' if part in trainable else 'frozen'}"
        )


def parameter_groups(
    *parts: nn.Module, backbone: nn.Module, lr: float, lr_backbone: float | None, muon: bool
) -> list[dict[str, Any]]:
    """The optimiser's groups; what is frozen is left out.

    Args:
        *parts: Trained at `lr`.
        backbone: Trained at a rate of its own.
        lr: Learning rate.
        lr_backbone: Learning rate of the backbone; None is `lr`.
        muon: Split each group in two: weight matrices, which Muon is made for, and the rest.
    """
    groups: list[dict[str, Any]] = []
    for modules, rate in ((parts, lr), ((backbone,), lr if lr_backbone is None else lr_backbone)):
        parameters = [parameter for module in modules for parameter in trainable_parameters(module)]
        if muon:
            weights = {weight for module in modules for weight in _linear_weights(module)}
            for matrices in (True, False):
                chosen = [parameter for parameter in parameters if (parameter in weights) == matrices]
                groups.append({"params": chosen, "lr": rate, MATRICES: matrices})
        else:
            groups.append({"params": parameters, "lr": rate})
    return [group for group in groups if group["params"]]


def _linear_weights(module: nn.Module) -> list[torch.Tensor]:
    """What Muon is made for: weights of linear layers; not embeddings, nor a language head, tied to them or not."""
    return [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith("lm_head")
    ]


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
