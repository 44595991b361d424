"""What learns in a stage, and how its optimiser groups it."""

import logging
from typing import Any

import torch
from torch import nn

from lerobot_gem.policies.base_configuration import GemPartsConfig
from lerobot_gem.training.muon import MATRICES
from lerobot_gem.training.stages import STAGES, part_of

logger = logging.getLogger(__name__)


def freeze(policy: nn.Module, stage: str, config: GemPartsConfig) -> None:
    """Let learn what the stage and the configuration's freeze flags say, and nothing else.

    Raises:
        ValueError: Nothing learns.
    """
    learns = set(STAGES[stage].learns)
    if not getattr(config, "expert", None) or config.expert.freeze:
        learns.discard("expert")
    for parts, frozen in (
        ({"vision_tower", "merger"}, config.backbone.freeze_vision_tower),
        ({"language_model"}, config.backbone.freeze_language_model),
    ):
        if frozen is not None:
            learns = learns - parts if frozen else learns | parts
    sizes: dict[str, int] = {}
    for name, parameter in policy.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in learns)
        sizes[part] = sizes.get(part, 0) + parameter.numel()
    for part, size in sizes.items():
        logger.info(f"{part}: {size / 1e6:.2f} M parameters, {'learns' if part in learns else 'frozen'}")
    if not learns & sizes.keys():
        raise ValueError(
            "Nothing learns: backbone.freeze_vision_tower, backbone.freeze_language_model and expert.freeze are "
            "all true. Unfreeze one."
        )


def parameter_groups(config: GemPartsConfig, *parts: nn.Module, backbone: nn.Module) -> list[dict[str, Any]]:
    """The optimiser's groups: `parts`, and the backbone at its own learning rate; what is frozen is left out.

    For Muon, each is two: weight matrices, and the rest.
    """
    lr_backbone = (
        config.optimizer_lr if config.optimizer_lr_backbone is None else config.optimizer_lr_backbone
    )
    groups: list[dict[str, Any]] = []
    for modules, lr in ((parts, config.optimizer_lr), ((backbone,), lr_backbone)):
        parameters = [parameter for module in modules for parameter in learning(module)]
        if config.optimizer_name == "muon":
            weights = {weight for module in modules for weight in _linear_weights(module)}
            for matrices in (True, False):
                chosen = [parameter for parameter in parameters if (parameter in weights) == matrices]
                groups.append({"params": chosen, "lr": lr, MATRICES: matrices})
        else:
            groups.append({"params": parameters, "lr": lr})
    return [group for group in groups if group["params"]]


def _linear_weights(module: nn.Module) -> list[torch.Tensor]:
    """What Muon is made for: weights of linear layers; not embeddings, nor a language head, tied to them or not."""
    return [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith("lm_head")
    ]


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
