"""`lerobot-gem-card`: write the card of a trained checkpoint, with its pictures, into its folder."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TRAIN_CONFIG_NAME, TrainPipelineConfig

from lerobot_gem.checkpoints.processor_files import check_processor_files
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.card_pictures import write_card_pictures
from lerobot_gem.policies.model_card import make_model_card
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options
from lerobot_gem.storage.opening import DatasetOptions, open_metadata

CARD = "README.md"
# What PEFT adds to the Hub's empty template, which it saves with every adapter.
_PEFTS_LINE = re.compile(
    r"---|library_name: peft|(base_model|pipeline_tag): .*|tags:|- (base_model:adapter:.*|lora|transformers)|### Framework versions|- PEFT \S+"
)


@dataclass
class TrainedCheckpoint:
    """The checkpoint that the card is about: `--policy.*`.

    Attributes:
        path: Folder `pretrained_model` of a training run.
    """

    path: Path


@dataclass
class TrainingData:
    """Where the training dataset is: `--dataset.*`.

    Attributes:
        root: Its folder; None for the place in `train_config.json`.
    """

    root: Path | None = None


@dataclass
class CardConfig:
    """Whose card, and what its commands name.

    Attributes:
        policy: The checkpoint.
        dataset: What it was trained on.
        repo_id: Hub id that the policy will have, such as you/your_policy. The card's commands
            name it.
    """

    policy: TrainedCheckpoint
    repo_id: str
    dataset: TrainingData = field(default_factory=TrainingData)

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise ValueError(
                f"--repo_id={self.repo_id}: expected a Hub id such as you/your_policy. {error}"
            ) from error
        if not (self.policy.path / TRAIN_CONFIG_NAME).is_file():
            raise ValueError(
                f"--policy.path={self.policy.path} has no {TRAIN_CONFIG_NAME}: expected the folder pretrained_model of a training run."
            )
        card = self.policy.path / CARD
        if card.exists() and not _is_empty_template(card):
            raise ValueError(
                f"{card} is there: expected no card, or PEFT's empty template. Remove it, if no text of yours is in it."
            )


def _is_empty_template(card: Path) -> bool:
    """Whether a card is what PEFT saves beside an adapter, and nobody's text is in it."""
    template = ModelCard.from_template(ModelCardData()).content
    empty = {line.strip() for line in template.splitlines()}
    lines = [line.strip() for line in card.read_text(encoding="utf-8", errors="replace").splitlines()]
    return "library_name: peft" in lines and all(
        line in empty or _PEFTS_LINE.fullmatch(line) for line in lines
    )


def write_card(config: CardConfig) -> Path:
    """Write README.md and assets/ into the checkpoint's folder.

    What lies in the run's folder (evaluations, videos, generated depth) joins the card, as when LeRobot pushes.

    Args:
        config: Whose card.

    Returns:
        The file.

    Raises:
        ValueError: The policy is none of ours, or its processors could run code or read other files. Nothing was written then.
    """
    folder = config.policy.path.resolve()
    cfg = TrainPipelineConfig.from_pretrained(folder)
    saved = PreTrainedConfig.from_pretrained(folder)
    if not isinstance(saved, BaseGemConfig):
        raise ValueError(f"{folder} is a policy of type {saved.type!r}: expected 'gem' or 'gem_vla'.")
    check_processor_files(folder)
    # Of this machine. Elsewhere than in a run's folder, what lies around the checkpoint may be anybody's.
    is_in_run = folder.name == "pretrained_model" and folder.parents[1].name == "checkpoints"
    cfg.output_dir = folder.parents[2] if is_in_run else folder
    root = config.dataset.root or cfg.dataset.root
    meta = open_metadata(DatasetOptions(cfg.dataset.repo_id, root=None if root is None else Path(root)))
    saved.repo_id = config.repo_id
    pictures = write_card_pictures(cfg.output_dir, folder)
    card = make_model_card(saved, dataset=cfg.dataset.repo_id, cfg=cfg, dataset_meta=meta, pictures=pictures)
    card.save(folder / CARD)
    return folder / CARD


@mistakes_in_one_line()
def main() -> None:
    config = parse_options(CardConfig)
    print(f"{write_card(config)}: hf upload {config.repo_id} {config.policy.path}")


if __name__ == "__main__":
    main()
