"""What a policy's card on the Hub says beside LeRobot's own text."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from lerobot_gem.results.report import results_beside

# LeRobot's card lists all tasks; a dataset of questions may have as many as frames.
_MOST_TASKS = 20
_INSTALLATION = """
> [!IMPORTANT]
> This policy needs the plugin **`lerobot_policy_gem`** beside LeRobot: install it first. Without it, LeRobot stops with
> "Policy type … is not registered". LeRobot's commands find it by themselves; in Python, write `import lerobot_policy_gem` before the
> policy is loaded.

GEM (arXiv [2605.28548](https://arxiv.org/abs/2605.28548)) teaches a vision-language model geometry by making it generate depth maps
while it trains; GEM-VLA adds an action expert. Depth is needed for training only.
"""


def make_model_card(
    lerobots: Callable[..., ModelCard], *args: Any, cfg: Any = None, dataset_meta: Any = None, **kwargs: Any
) -> ModelCard:
    """LeRobot's card, with what it takes to load the policy, its evaluations, and not more tasks than one reads.

    Args:
        lerobots: Makes LeRobot's card.
        *args: What it takes.
        cfg: The training run's configuration, when there is one; evaluations below its `output_dir` join the card.
        dataset_meta: Metadata of the training dataset, when there is one.
        **kwargs: What it takes.
    """
    if dataset_meta is not None:
        dataset_meta = copy.copy(dataset_meta)
        dataset_meta.tasks = dataset_meta.tasks.iloc[:_MOST_TASKS]
    card = lerobots(*args, cfg=cfg, dataset_meta=dataset_meta, **kwargs)
    title, rest = card.text.split("\n\n", maxsplit=1)
    card.text = f"{title}\n{_INSTALLATION}\n{rest}"
    output_dir = getattr(cfg, "output_dir", None)
    results = None if output_dir is None else results_beside(Path(output_dir))
    if results is not None:
        card.text += (
            f"\n## Evaluations\n\nFolders of the training run in which `lerobot-eval` wrote:\n\n{results}"
        )
    return card
