"""What both policies do alike: loading, precision, freezing, the optimiser's groups."""

from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import nn

from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.model_card import make_model_card
from lerobot_gem.training.trainable import freeze_all_but, parameter_groups

# Where on the Hub a checkpoint is; not `force_download`, which would fetch the weights again for each other file.
_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only")


class BaseGemPolicy(PreTrainedPolicy):
    """A backbone, and a depth generator while it teaches.

    Attributes:
        config: Of the policy.
        backbone: The vision-language model.
        generator: The depth generator; None where no depth is learned.
    """

    config_class = BaseGemConfig
    name = "gem_base"

    config: BaseGemConfig
    backbone: GemBackbone
    generator: DepthGenerator | None

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a checkpoint that LeRobot saved; needs no file but those in it.

        Raises:
            ValueError: Weights are missing, unexpected, of another shape, or cut short; the error names them. Or the
                configuration has other cameras than the checkpoint, whose processor would go on with its own.
        """
        if (config := kwargs.get("config")) is not None:
            # It may have other cameras by the command line, and version 0.1 did not write what they were built as.
            hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name)}
            stored: Any = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub)
            config.built.images = stored.built.images
        return super().from_pretrained(pretrained_name_or_path, weights_follow=True, **kwargs)

    def freeze(self) -> None:
        """Make trainable what stage and configuration say, and nothing else.

        Raises:
            ValueError: Nothing would be trained.
        """
        freeze_all_but(self, self.config.trainable_parts)

    def autocast(self) -> torch.autocast:
        """The configured precision. LeRobot applies it in training only; applied here, inference computes the same."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def get_optim_params(self) -> list[dict[str, Any]]:
        """The optimiser's groups: the backbone at its own learning rate, and all else; without what is frozen."""
        config = self.config
        return parameter_groups(
            *self._parts_beside_backbone(),
            backbone=self.backbone,
            lr=config.optimizer_lr,
            lr_backbone=config.optimizer_lr_backbone,
            muon=config.optimizer_name == "muon",
        )

    def _parts_beside_backbone(self) -> list[nn.Module]:
        return [] if self.generator is None else [self.generator]

    def generate_model_card(self, *args: Any, dataset_meta: Any = None, **kwargs: Any) -> ModelCard:
        """LeRobot's card, with what it takes to load the policy."""
        return make_model_card(super().generate_model_card, *args, dataset_meta=dataset_meta, **kwargs)
