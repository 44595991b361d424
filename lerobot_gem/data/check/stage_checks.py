"""What training would make of a dataset, and which errors it would raise: its own code, run without a model.

A stage is bound to the dataset as LeRobot's `make_policy` and the policy's constructor do it; texts and batches go through
the processor steps and the depth conversion that training uses.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from lerobot.configs import FeatureType
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.utils import validate_visual_features_consistency
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK
from lerobot.utils.feature_utils import dataset_to_policy_features
from torch import Tensor

from lerobot_gem.models.presets import get_preset
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.depth_cameras import metres, pair_depth
from lerobot_gem.processing.depth_target import DepthTargets, depth_target
from lerobot_gem.processing.language import MESSAGES, Message, messages_of_task
from lerobot_gem.processing.steps import (
    IGNORED,
    OBS_LABELS,
    OBS_ROW_SAMPLES,
    CheckObservationStep,
    LanguageRowsStep,
    PromptStep,
)
from lerobot_gem.training.stages import STAGES

_TEXT_BATCH = 256
# Errors of single frames that are quoted; the others are counted.
_QUOTED = 3


@dataclass
class FrameErrors:
    """Errors that training would raise at single frames.

    Attributes:
        frames: Indices of the frames.
        quoted: The first errors.
    """

    frames: set[int] = field(default_factory=set)
    quoted: list[str] = field(default_factory=list)

    def add(self, frame: int, error: Exception) -> None:
        """Note an error at the frame with this index in the whole dataset."""
        self.frames.add(frame)
        if len(self.quoted) < _QUOTED:
            self.quoted.append(f"frame {frame}: {error}")

    @property
    def lines(self) -> list[str]:
        """The first ones in full, and how many there are beyond them."""
        rest = len(self.frames) - len(self.quoted)
        return self.quoted + ([f"and the like at {rest:,} more frame(s)"] if rest else [])


@dataclass
class Texts:
    """What the prompts of a policy hold.

    Attributes:
        frames: Frames whose text was read.
        lengths: Tokens of each prompt.
        questions: Questions that are learned, by the camera that they name (None: none).
        with_language: Frames with an answer to learn, or, for acting, with a task.
        task_only: Of these, frames whose one answer is the task sentence, for lack of other text.
        left_out: Questions about cameras that the policy does not have.
        errors: What training would raise.
    """

    frames: int = 0
    lengths: list[int] = field(default_factory=list)
    questions: Counter[str | None] = field(default_factory=Counter)
    with_language: int = 0
    task_only: int = 0
    left_out: int = 0
    errors: FrameErrors = field(default_factory=FrameErrors)


def stage_of(config: BaseGemConfig) -> str:
    """The stage that a configuration trains."""
    return config.stage if isinstance(config, GemConfig) else "action"


def stage_config(stage: str, given: BaseGemConfig | None) -> BaseGemConfig:
    """The configuration of a stage: `given` if it is of this stage, else one with its backbone, cameras and depth.

    Without `given` it is that of the preset `tiny`, the only one whose tokenizer needs no download.

    Raises:
        ValueError: The settings of `given` do not fit the stage.
    """
    if given is not None and stage_of(given) == stage:
        config = deepcopy(given)
        config.device = "cpu"
        return config
    settings: dict[str, Any] = {"preset": "tiny"}
    if given is not None:
        backbone = deepcopy(given.backbone)
        if given.pretrained_path:
            backbone.pretrained = str(given.pretrained_path)
        settings = {
            "preset": given.preset,
            "backbone": backbone,
            "cameras": deepcopy(given.cameras),
            "depth": replace(given.depth, loss_weight=None),
        }
    if stage == "action":
        return GemVLAConfig(**settings, device="cpu")
    return GemConfig(**settings, device="cpu", stage=stage)


def bind(config: BaseGemConfig, meta: Any, rename_map: dict[str, str]) -> None:
    """Tell a configuration its dataset, as `make_policy` (lerobot/policies/factory.py) and the policy do.

    Raises:
        ValueError: What training would raise.
    """
    features = dataset_to_policy_features(meta.features)
    config.output_features = {name: ft for name, ft in features.items() if ft.type is FeatureType.ACTION}
    if not config.input_features:
        config.input_features = {
            name: ft for name, ft in features.items() if name not in config.output_features
        }
    config.set_dataset_feature_metadata(meta.features)
    config.validate_features()
    config.check_dataset(meta)
    if not rename_map:
        validate_visual_features_consistency(config, features)


def lacks(stage: str, meta: Any) -> str | None:
    """What a stage needs and the dataset has none of, or None."""
    if "action" in STAGES[stage].losses and ACTION not in meta.features:
        return "no actions"
    try:
        has_depth = bool(pair_depth(meta.features, None))
    except ValueError:
        has_depth = True  # there is some, with a mistake that binding reports
    needs_depth = "depth" in STAGES[stage].losses and stage != "action"
    return "no depth" if needs_depth and not has_depth else None


class TrainingView:
    """A dataset as one policy's training sees it.

    Attributes:
        config: The policy's.
        context: The longest sequence that its backbone was made for, in tokens.
        cameras: Its cameras, in prompt order.
        is_acting: Whether it acts, instead of answering.

    Args:
        config: Bound to the dataset.
        meta: The dataset's metadata.
        rename_map: LeRobot's, for a checkpoint whose cameras have other names.

    Raises:
        ValueError: What training would raise before its first batch.
        OSError: The tokenizer or checkpoint can't be read.
    """

    def __init__(self, config: BaseGemConfig, meta: Any, rename_map: dict[str, str]) -> None:
        from transformers import Qwen3VLConfig

        self.config = config
        architecture = config.built.backbone or Qwen3VLConfig(**_architecture(config)).to_dict()
        config.built.backbone = architecture
        config.settle_images()
        self.context: int = architecture["text_config"]["max_position_embeddings"]
        self.cameras: list[str] = list(config.camera_names)
        self.is_acting = isinstance(config, GemVLAConfig)
        if not self.is_acting:
            LanguageRowsStep.bind(meta)
        overrides = {}
        if config.pretrained_path:
            # As lerobot-train does it (lerobot/scripts/lerobot_train.py).
            overrides["preprocessor_overrides"] = {
                "device_processor": {"device": "cpu"},
                "normalizer_processor": {
                    "features": {**(config.input_features or {}), **(config.output_features or {})},
                    "norm_map": config.normalization_mapping,
                    "stats": meta.stats,
                },
                "rename_observations_processor": {"rename_map": rename_map},
            }
        self._preprocess, _ = make_pre_post_processors(
            config,
            pretrained_path=str(config.pretrained_path) if config.pretrained_path else None,
            dataset_stats=meta.stats,
            **overrides,
        )
        steps = self._preprocess.steps
        self._language = [step for step in steps if isinstance(step, LanguageRowsStep)]
        [self._prompt] = [step for step in steps if isinstance(step, PromptStep)]
        [self._check] = [step for step in steps if isinstance(step, CheckObservationStep)]
        # Prompts depend on the sizes of the images alone, so that texts are read without decoding any.
        found = dataset_to_policy_features(meta.features)
        found = {rename_map.get(name, name): feature for name, feature in found.items()}
        self._sizes = {name: found[name].shape for name in self.cameras if name in found}

    def image_tokens(self) -> list[int]:
        """Visual tokens of each image of a prompt: one per camera, or one of all cameras side by side.

        Raises:
            ValueError: A camera is missing, or cameras side by side have different heights.
        """
        return self._prompt.images.token_counts(self._images(1))

    def read_texts(self, dataset: LeRobotDataset, frames: Sequence[int]) -> Texts:
        """Write the prompts of some frames (positions in `dataset`), without their images."""
        texts = Texts()
        for batch in text_batches(dataset, frames):
            try:
                self._count(batch, texts)
            except ValueError:
                for position in range(len(batch["index"])):
                    alone = {key: values[position : position + 1] for key, values in batch.items()}
                    try:
                        self._count(alone, texts)
                    except ValueError as error:
                        texts.errors.add(int(alone["index"][0]), error)
            texts.frames += len(batch["index"])
        return texts

    def messages(self, batch: dict[str, Any]) -> list[list[Message]]:
        """The messages of each sample of a batch; none for acting.

        Raises:
            ValueError: What training would raise.
        """
        transition: EnvTransition = {TransitionKey.COMPLEMENTARY_DATA: batch}
        for step in self._language:
            transition = step(transition)
        return transition[TransitionKey.COMPLEMENTARY_DATA].get(MESSAGES, []) if self._language else []

    def _images(self, size: int) -> dict[str, Tensor]:
        """Images without content."""
        return {name: torch.empty(size, *shape, device="meta") for name, shape in self._sizes.items()}

    def _count(self, batch: dict[str, Any], texts: Texts) -> None:
        size = len(batch["index"])
        messages = self.messages(batch)
        written = self._prompt(
            {
                TransitionKey.OBSERVATION: self._images(size),
                TransitionKey.COMPLEMENTARY_DATA: {**batch, **({MESSAGES: messages} if messages else {})},
            }
        )[TransitionKey.OBSERVATION]
        texts.lengths += written[OBS_LANGUAGE_ATTENTION_MASK].sum(dim=1).tolist()
        if self.is_acting:
            texts.with_language += size
            return
        learned = (written[OBS_LABELS] != IGNORED).any(dim=1)
        texts.with_language += len(written[OBS_ROW_SAMPLES][learned].unique())
        tasks = batch.get("task") or [None] * size
        for talk, task, index in zip(messages, tasks, batch["index"].tolist(), strict=True):
            texts.task_only += bool(talk) and bool(task) and talk == messages_of_task(task, index)
            named = Counter(message.get("camera") for message in talk[::2])
            unknown = [camera for camera in named if camera not in (None, *self.cameras)]
            texts.left_out += sum(named.pop(camera) for camera in unknown)
            texts.questions += named

    def check_vectors(self, vectors: dict[str, Tensor]) -> None:
        """Raise what training would raise at a state (N, D) of these."""
        self._check({TransitionKey.OBSERVATION: vectors})

    def check_batch(self, batch: dict[str, Any]) -> None:
        """Raise what training would raise before the model reads a batch."""
        self._preprocess(dict(batch))


def usable_depth(batch: dict[str, Any], config: BaseGemConfig, pairs: dict[str, str]) -> Tensor:
    """Which frames have depth to learn from (B,), as `depth_losses` finds it.

    Raises:
        ValueError: What training would raise.
    """
    usable = []
    for camera, key in pairs.items():
        depth = metres(batch, key, config.depth.unit)
        usable.append(depth_picture(depth, tuple(batch[camera].shape[-2:]), config).has_depth)
    return torch.stack(usable).any(dim=0)


def depth_picture(depth: Tensor, rgb_size: tuple[int, int], config: BaseGemConfig) -> DepthTargets:
    """What the generator learns of depth (N, 1, H, W) in metres beside images of some height and width."""
    return depth_target(
        depth,
        colormap=config.depth.colormap,
        max_side=cast(int, config.depth.max_side),
        rgb_size=rgb_size,
    )


def text_batches(dataset: LeRobotDataset, frames: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The text of some frames, under the names and types that LeRobot's collate function gives it."""
    known = dataset.hf_dataset.column_names
    columns = [name for name in ("index", "timestamp", "task_index", MESSAGES) if name in known]
    table = dataset.hf_dataset.select_columns(columns).with_format("arrow")
    for start in range(0, len(frames), _TEXT_BATCH):
        rows = table[list(frames[start : start + _TEXT_BATCH])]
        batch: dict[str, Any] = {name: torch.tensor(rows[name].to_numpy()) for name in ("index", "timestamp")}
        tasks = dataset.meta.tasks
        if tasks is not None:
            batch["task"] = [tasks.iloc[position].name for position in rows["task_index"].to_pylist()]
        if MESSAGES in columns:
            batch[MESSAGES] = rows[MESSAGES].to_pylist()
        yield batch


def _architecture(config: BaseGemConfig) -> dict[str, Any]:
    from lerobot_gem.checkpoints.formats import open_checkpoint

    if config.backbone.pretrained is None:
        return get_preset(config.preset).backbone
    return open_checkpoint(config.backbone.pretrained).backbone_config
