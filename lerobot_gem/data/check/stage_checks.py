"""What the stages of GEM make of a dataset: a configuration for each, and the texts and batches that its policy reads."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK
from lerobot.utils.feature_utils import dataset_to_policy_features
from torch import Tensor

from lerobot_gem.data.check.training_path import Item, bind, make_preprocessor
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.base_options import DepthSupervision
from lerobot_gem.policies.depth_loss import depth_losses
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.depth_cameras import pair_depth
from lerobot_gem.processing.language import MESSAGES, Message, messages_of_task
from lerobot_gem.processing.steps import (
    IGNORED,
    OBS_LABELS,
    OBS_ROW_SAMPLES,
    CheckObservationStep,
    LanguageRowsStep,
    PromptStep,
)
from lerobot_gem.storage.reasons import reason
from lerobot_gem.training.stages import PRETRAINING, STAGES

# Policy -> the stages that train it.
STAGES_OF = {"gem": PRETRAINING, "gem_vla": ("action",)}
TEXT_BATCH = 256
# Errors of single frames that are quoted; the others are counted.
_QUOTED = 3
_NAMES_FRAME = re.compile(r"\bframe \d", re.IGNORECASE)


@dataclass
class FrameErrors:
    """Errors that training would raise at single frames.

    Attributes:
        entries: Index of the frame (None where all are at fault) and what is said, in order.
    """

    entries: list[tuple[int | None, str]] = field(default_factory=list)

    def add(self, frame: int, error: Exception) -> None:
        """Note an error at the frame with this index in the whole dataset."""
        said = reason(error)
        # An action of a chunk is from another frame, which the error names.
        self.entries.append((frame, said if _NAMES_FRAME.search(said) else f"frame {frame}: {said}"))

    @property
    def frames(self) -> set[int]:
        """Indices of the frames."""
        return {frame for frame, _ in self.entries if frame is not None}

    @property
    def lines(self) -> list[str]:
        """The first ones in full, each once, and at how many frames there are others."""
        quoted = list(dict.fromkeys(text for _, text in self.entries))[:_QUOTED]
        others = sum(text not in quoted for _, text in self.entries)
        return quoted + ([f"and the like at {others:,} more frame(s)"] if others else [])


@dataclass
class Texts:
    """What the prompts of a policy hold.

    Attributes:
        frames: Frames whose text was read.
        lengths: Tokens of each prompt.
        questions: Questions to learn, by the camera that they name (None: none).
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

    def take(self, others: "Texts") -> None:
        """Add those that were read behind these."""
        self.frames += others.frames
        self.lengths += others.lengths
        self.questions.update(others.questions)
        self.with_language += others.with_language
        self.task_only += others.task_only
        self.left_out += others.left_out
        self.errors.entries += others.errors.entries


@dataclass(frozen=True)
class BoundStage:
    """A stage whose configuration was told the dataset.

    Attributes:
        name: Connector, generator, joint or action.
        lacking: What it needs and the dataset has none of, or None.
        config: Of its policy; None if training would not get as far as a policy.
        errors: What training would raise on the way to the policy; it stops at the first.
    """

    name: str
    lacking: str | None
    config: BaseGemConfig | None
    errors: list[str]


def stage_of(config: BaseGemConfig) -> str:
    """The stage that a configuration trains."""
    return config.stage if isinstance(config, GemConfig) else "action"


def stage_config(stage: str, given: BaseGemConfig | None) -> BaseGemConfig:
    """The configuration of a stage: `given` if it is of this stage, else one with its backbone, cameras and depth.

    Without `given` it is that of the preset `tiny`, the only one whose tokenizer needs no download. A stage that was not
    asked about is judged by the dataset alone: that no stage before it was trained is no error.

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
    return GemConfig(**settings, device="cpu", stage=stage, allow_untrained=True)


def bind_stage(
    stage: str, given: BaseGemConfig | None, meta: LeRobotDatasetMetadata, rename_map: dict[str, str]
) -> BoundStage:
    """Tell the configuration of a stage its dataset.

    Args:
        stage: Connector, generator, joint or action.
        given: The configuration that was asked about, if any.
        meta: Metadata of the dataset.
        rename_map: LeRobot's; that of `given`, which other stages have no use for.
    """
    lacking = lacks(stage, meta)
    try:
        config = stage_config(stage, given)
        bind(config, meta, rename_map if given is not None and stage_of(given) == stage else {})
    except Exception as error:  # whatever it is, training would stop at it
        return BoundStage(stage, lacking, None, [reason(error)])
    return BoundStage(stage, lacking, config, [])


def config_for_texts(given: BaseGemConfig | None, meta: LeRobotDatasetMetadata) -> BaseGemConfig | None:
    """A configuration of `gem` that reads texts where depth is missing or wrong; None if they can't be read either."""
    try:
        config = stage_config("joint", given)
        config.depth.loss_weight = 0.0
        bind(config, meta, {})
    except Exception:  # the stages report it
        return None
    return config


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
        image_tokens: Tokens of each image of a prompt: one per camera, or one of all cameras side by side.
        is_acting: Whether it acts, instead of answering.

    Args:
        config: Bound to the dataset.
        meta: The dataset's metadata.
        rename_map: LeRobot's, for a checkpoint whose cameras have other names.

    Raises:
        Exception: Whatever training would raise before its first batch.
    """

    def __init__(
        self, config: BaseGemConfig, meta: LeRobotDatasetMetadata, rename_map: dict[str, str]
    ) -> None:
        self.config = config
        self.context: int = config.built.backbone["text_config"]["max_position_embeddings"]
        self.cameras = config.camera_names
        self.is_acting = isinstance(config, GemVLAConfig)
        self._preprocess = make_preprocessor(config, meta, rename_map)
        steps = self._preprocess.steps
        self._language = [step for step in steps if isinstance(step, LanguageRowsStep)]
        [self._prompt] = [step for step in steps if isinstance(step, PromptStep)]
        [self._check] = [step for step in steps if isinstance(step, CheckObservationStep)]
        # Prompts depend on the sizes of the images alone, so that texts are read without decoding any.
        found = dataset_to_policy_features(meta.features)
        found = {rename_map.get(name, name): feature for name, feature in found.items()}
        self.image_tokens: list[int] = self._prompt.images.token_counts(
            {
                name: torch.empty(1, *found[name].shape, device="meta")
                for name in self.cameras
                if name in found
            }
        )

    def read_texts(self, dataset: LeRobotDataset, frames: Sequence[int]) -> Texts:
        """Write the prompts of some frames (positions in `dataset`), without their images."""
        texts = Texts()
        for batch in text_batches(dataset, frames):
            try:
                self._count(batch, texts)
            except Exception:
                for position in range(len(batch["index"])):
                    alone = {key: values[position : position + 1] for key, values in batch.items()}
                    try:
                        self._count(alone, texts)
                    except Exception as error:
                        texts.errors.add(int(alone["index"][0]), error)
            texts.frames += len(batch["index"])
        return texts

    def messages(self, batch: Item) -> list[list[Message]]:
        """The messages of each sample of a batch; none for acting.

        Raises:
            ValueError: What training would raise.
        """
        transition: EnvTransition = {TransitionKey.COMPLEMENTARY_DATA: batch}
        for step in self._language:
            transition = step(transition)
        return transition[TransitionKey.COMPLEMENTARY_DATA].get(MESSAGES, []) if self._language else []

    def _count(self, batch: Item, texts: Texts) -> None:
        size = len(batch["index"])
        messages = self.messages(batch)
        data = {**batch, **({MESSAGES: messages} if messages else {})}
        written, _ = self._prompt.texts({TransitionKey.COMPLEMENTARY_DATA: data}, self.image_tokens, size)
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

    def check_vectors(self, vectors: Mapping[str, Tensor], frames: Mapping[str, Tensor]) -> FrameErrors:
        """What training would raise at states and actions.

        Args:
            vectors: Key -> (N, D).
            frames: `index` and `episode_index` (N,) of their frames.
        """
        errors = FrameErrors()
        try:
            self._check_rows(vectors, frames, slice(None))
        except Exception as error:
            broken = torch.stack([~values.isfinite().all(dim=1) for values in vectors.values()]).any(dim=0)
            rows = broken.nonzero().flatten().tolist()
            if not rows:  # no frame is at fault, but all are of the wrong size
                errors.entries.append((None, reason(error)))
            for row in rows:
                try:
                    self._check_rows(vectors, frames, slice(row, row + 1))
                except Exception as one:
                    errors.add(int(frames["index"][row]), one)
        return errors

    def _check_rows(self, vectors: Mapping[str, Tensor], frames: Mapping[str, Tensor], rows: slice) -> None:
        """Raise what training would raise at some rows."""
        taken = {key: values[rows] for key, values in vectors.items()}
        action = taken.pop(ACTION, None)
        data = {key: values[rows] for key, values in frames.items()}
        self._check(
            {
                TransitionKey.OBSERVATION: taken,
                TransitionKey.ACTION: action,
                TransitionKey.COMPLEMENTARY_DATA: data,
            }
        )

    def check_batch(self, batch: Item) -> None:
        """Raise what training would raise before the model reads a batch."""
        self._preprocess(dict(batch))


class _NoGenerator:
    """Stands in for the depth generator, whose loss needs weights."""

    @staticmethod
    def loss(spans: Tensor, mask: Tensor, pictures: Tensor) -> Tensor:
        return torch.zeros(len(pictures))


def usable_depth(batch: Item, supervision: DepthSupervision) -> Tensor:
    """Which frames have depth to learn from, as the depth loss finds it.

    Args:
        batch: Of B frames, before the processor steps.
        supervision: Which depth is learned, and how.

    Returns:
        (B,) bool.

    Raises:
        ValueError: What training would raise.
    """
    cameras = list(supervision.cameras)
    size = len(batch["index"])
    shown = [(sample, camera) for sample in range(size) for camera in range(len(cameras))]
    spans = torch.zeros(len(shown), 1, 1)
    losses = depth_losses(
        cast(DepthGenerator, _NoGenerator()),
        spans,
        torch.ones(len(shown), 1, dtype=torch.bool),
        shown,
        batch,
        cameras,
        supervision,
    )
    usable = torch.zeros(size, dtype=torch.bool)
    usable[losses.samples] = True
    return usable


def text_batches(dataset: LeRobotDataset, frames: Sequence[int]) -> Iterator[Item]:
    """The text of some frames, under the names and types that LeRobot's collate function gives it."""
    known = dataset.hf_dataset.column_names
    columns = [name for name in ("index", "timestamp", "task_index", MESSAGES) if name in known]
    table = dataset.hf_dataset.select_columns(columns).with_format("arrow")
    for start in range(0, len(frames), TEXT_BATCH):
        rows = table[list(frames[start : start + TEXT_BATCH])]
        batch: Item = {name: torch.tensor(rows[name].to_numpy()) for name in ("index", "timestamp")}
        tasks = dataset.meta.tasks
        if tasks is not None:
            batch["task"] = [tasks.iloc[position].name for position in rows["task_index"].to_pylist()]
        if MESSAGES in columns:
            batch[MESSAGES] = rows[MESSAGES].to_pylist()
        yield batch
