"""What both policies do with checkpoints, on disk and on the Hub."""

import copy
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard
from lerobot.configs import PreTrainedConfig

# Where on the Hub a checkpoint is; not `force_download`, which would fetch the weights again for each other file.
_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only")
# LeRobot's card lists all tasks; a dataset of questions may have as many as frames.
_MOST_TASKS = 20
_INSTALLATION = """
> [!IMPORTANT]
> This policy needs the plugin **`lerobot_policy_gem`** beside LeRobot: install it first. Without it, LeRobot stops with
> "Policy type … is not registered".

GEM (arXiv [2605.28548](https://arxiv.org/abs/2605.28548)) teaches a vision-language model geometry by making it generate depth maps
while it trains; GEM-VLA adds an action expert. Depth is needed for training only.
"""


def hub_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of `from_pretrained`, those that tell where on the Hub the checkpoint's other files are."""
    return {name: arguments[name] for name in _HUB_ARGUMENTS if arguments.get(name)}


class SharedPolicy:
    """Mixed into a `PreTrainedPolicy`: how it is loaded, and what its model card says."""

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a checkpoint that LeRobot saved; needs no file but those in it.

        Raises:
            ValueError: Weights are missing, unexpected, of another shape, or cut short; the error names them. Or the
                configuration has other cameras than the checkpoint, whose processor would go on with its own.
        """
        policy = super().from_pretrained(pretrained_name_or_path, weights_follow=True, **kwargs)  # type: ignore[misc]
        if kwargs.get("config") is None:
            return policy  # with the checkpoint's own configuration
        stored: Any = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub_arguments(kwargs))
        if stored.cameras != policy.config.cameras:
            raise ValueError(
                f"{policy.config.cameras} is not what the checkpoint {str(pretrained_name_or_path)!r} was trained with, "
                f"{stored.cameras}: its processor writes the prompts for that. Leave out --policy.cameras.…, rename the data "
                "set's cameras with --rename_map, or start a new policy from --policy.backbone.pretrained."
            )
        return policy

    def generate_model_card(self, *args: Any, dataset_meta: Any = None, **kwargs: Any) -> ModelCard:
        """LeRobot's card, with what it takes to load the policy, and not more tasks than one reads."""
        if dataset_meta is not None:
            dataset_meta = copy.copy(dataset_meta)
            dataset_meta.tasks = dataset_meta.tasks.iloc[:_MOST_TASKS]
        card: ModelCard = super().generate_model_card(*args, dataset_meta=dataset_meta, **kwargs)  # type: ignore[misc]
        title, rest = card.text.split("\n\n", maxsplit=1)
        card.text = f"{title}\n{_INSTALLATION}\n{rest}"
        return card
