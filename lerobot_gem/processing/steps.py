"""The plugin's processor steps.

LeRobot rebuilds a checkpoint's pipeline from each step's configuration and state alone, so the tokenizer travels as a
tensor of bytes in the prompt step's state.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import ObservationProcessorStep, ProcessorStep, ProcessorStepRegistry
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from lerobot_gem.processing.chat import ACTION_SUFFIX, conversation, user_turn
from lerobot_gem.processing.images import CameraImages
from lerobot_gem.processing.language import (
    EVENTS,
    MESSAGES,
    PERSISTENT,
    LanguageTable,
    Message,
    check_cameras,
    conversations,
    messages_of_rows,
    messages_of_task,
    parse_messages,
)

OBS_PIXEL_VALUES = (
    "observation.pixel_values"  # (P, patch_dim), the patches of all images of the prompts, in order
)
OBS_GRID_THW = "observation.grid_thw"  # (N, 3), patches of each image in time, height and width
OBS_LABELS = "observation.language.labels"  # (R, L): the token where it is learned, else IGNORED
OBS_ROW_SAMPLES = "observation.language.samples"  # (R,): which sample a prompt belongs to
OBS_SHOWN = "observation.language.images"  # (N, 2): sample and camera of each vision span, in order
IGNORED = -100

Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]


@ProcessorStepRegistry.register(name="gem_language_rows")
class LanguageRowsStep(ProcessorStep):
    """Gives every sample its messages (see processing/language.py), wherever they come from.

    Stands before LeRobot's batch step, which drops language columns. Reads the batch's `messages`, its language columns
    if LeRobot delivers them, else those of the dataset bound to the step, else the task.
    """

    # LeRobot rebuilds the pipeline of a checkpoint without telling it the dataset. The policy is told, and tells us.
    _table: ClassVar[LanguageTable | None] = None
    _cameras: ClassVar[Sequence[str] | None] = None

    @classmethod
    def bind(cls, meta: Any) -> None:
        """Read language rows from the dataset that `meta` describes from now on, if it has any."""
        cls._table = LanguageTable(meta) if meta.has_language_columns else None
        cls._cameras = meta.camera_keys

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        data = dict(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {})
        if MESSAGES in data:
            entries = data[MESSAGES]
            data[MESSAGES] = self._parse([entries] if isinstance(entries, str) else entries)
        elif isinstance(data.get("index"), Tensor) and data["index"].ndim:  # else it is no training batch
            data[MESSAGES] = self._look_up(data)
        return {**transition, TransitionKey.COMPLEMENTARY_DATA: data}

    def _parse(self, entries: Sequence[str]) -> list[list[Message]]:
        parsed = [parse_messages(text) for text in entries]
        if self._cameras is not None:
            named = {
                message["camera"] for messages in parsed for message in messages if message.get("camera")
            }
            check_cameras(named, self._cameras, "the column 'messages'")
        return parsed

    def _look_up(self, data: dict[str, Any]) -> list[list[Message]]:
        indices = data["index"].tolist()
        tasks = data.get("task") or [None] * len(indices)
        messages = []
        for position, (index, task) in enumerate(zip(indices, tasks, strict=True)):
            if PERSISTENT in data or EVENTS in data:
                persistent, events = (
                    data[column][position] or [] if column in data else [] for column in (PERSISTENT, EVENTS)
                )
            else:
                persistent, events = self._table.rows(index) if self._table else ([], [])
            found = messages_of_rows(
                persistent, events, timestamp=float(data["timestamp"][position]), task=task, index=index
            )
            if not found and task and task.strip():
                found = messages_of_task(task, index)
            messages.append(found)
        return messages

    def transform_features(self, features: Features) -> Features:
        return features


@dataclass
@ProcessorStepRegistry.register(name="gem_check_observation")
class CheckObservationStep(ObservationProcessorStep):
    """Stops at the first observation that is not finite or not of the size that the policy was built for.

    Attributes:
        state_sizes: Size of each state vector, by observation key.
    """

    state_sizes: dict[str, int] = field(default_factory=dict)

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        for key, value in observation.items():
            is_image = isinstance(value, Tensor) and value.ndim == 4
            if not isinstance(value, Tensor) or (is_image and value.shape[1] == 1):
                continue  # invalid pixels are part of a depth map, the one kind of image with one channel
            if value.is_floating_point() and not _is_finite(value):
                raise ValueError(
                    f"{key} holds NaN or infinite values: expected finite numbers. Check the sensor or the dataset "
                    "(lerobot-dataset-viz shows the frame)."
                )
        for key, size in self.state_sizes.items():
            if key not in observation:
                raise ValueError(
                    f"The observation lacks {key!r}, a vector of {size} numbers that the policy was trained with. "
                    "Give it, or train with --policy.expert.use_state=false."
                )
            if observation[key].shape[-1] != size:
                raise ValueError(
                    f"{key} has {observation[key].shape[-1]} numbers, the policy was trained with {size}. "
                    "Use the robot or dataset that the policy was trained for, or train a new policy."
                )
        return observation

    def get_config(self) -> dict[str, Any]:
        return asdict(self)

    def transform_features(self, features: Features) -> Features:
        return features


@ProcessorStepRegistry.register(name="gem_prompt")
class PromptStep(ObservationProcessorStep):
    """Writes the prompts, vision spans, then text, and cuts their images into patches. Nothing is truncated.

    For acting, each sample has one prompt of all its images and its task. It adds
    `observation.language.tokens` (B, L) int64, padded on the left, `observation.language.attention_mask` (B, L) bool,
    `OBS_PIXEL_VALUES` and `OBS_GRID_THW`, all on the device of the frames.

    With `answers`, each sample has one prompt or more, which show each of its images once (`conversations`), and it adds
    the tokens and mask of all R prompts, padded on the right, and `OBS_LABELS`, `OBS_ROW_SAMPLES` and `OBS_SHOWN`.

    Args:
        tokenizer: The tokenizer, when the pipeline is made anew; a loaded pipeline takes it from its state.
        answers: Write questions with answers to be learned instead of prompts for acting.
        **images: The fields of `CameraImages`.
    """

    def __init__(self, *, tokenizer: Any = None, answers: bool = False, **images: Any) -> None:
        self.tokenizer = tokenizer
        self.answers = answers
        self.images = CameraImages(**images)
        # Robot data has few tasks and many frames; questions may be different each time.
        self._encode = lru_cache(maxsize=1024)(self._tokenize)

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        image_tokens = self.images.token_counts(observation)
        frames = observation[self.images.cameras[0]]
        texts, shown = self.texts(self.transition, image_tokens, len(frames))
        patches, grid = self.images.patches(observation, shown)
        added = {**texts, OBS_PIXEL_VALUES: patches, OBS_GRID_THW: grid}
        return {**observation, **{key: value.to(frames.device) for key, value in added.items()}}

    def texts(
        self, transition: EnvTransition, image_tokens: list[int], batch_size: int
    ) -> tuple[dict[str, Tensor], list[tuple[int, int]] | None]:
        """The prompts without their images.

        Args:
            transition: Holds the tasks, or messages.
            image_tokens: Tokens of each image of a prompt.
            batch_size: Samples B.

        Returns:
            What is added to the observation, on the CPU; and sample and camera of each image, None for all of them.

        Raises:
            ValueError: There is no task to act on.
        """
        if self.answers:
            return self._conversations(transition, image_tokens, batch_size)
        tasks = self._tasks(transition, batch_size)
        suffix = ACTION_SUFFIX if self.images.layout == "concat" else ""
        prompts = [self._encode(user_turn(task, image_tokens) + suffix) for task in tasks]
        return self._padded(prompts, side="left"), None

    def _conversations(
        self, transition: EnvTransition, image_tokens: list[int], batch_size: int
    ) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
        data = transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        messages: list[list[Message]] = data.get(MESSAGES) or [[] for _ in range(batch_size)]
        prompts, labels, samples, shown = [], [], [], []
        for sample in range(batch_size):
            for talk in conversations(messages[sample], self.images.cameras):
                pieces = conversation(talk.exchanges, [image_tokens[camera] for camera in talk.cameras])
                encoded = [(self._encode(text), learned) for text, learned in pieces]
                prompts.append([token for tokens, _ in encoded for token in tokens])
                labels.append(
                    [token if learned else IGNORED for tokens, learned in encoded for token in tokens]
                )
                samples.append(sample)
                shown += [(sample, camera) for camera in talk.cameras]
        texts = {
            **self._padded(prompts, side="right"),
            OBS_LABELS: _pad(labels, IGNORED, side="right"),
            OBS_ROW_SAMPLES: torch.tensor(samples),
            OBS_SHOWN: torch.tensor(shown),
        }
        return texts, shown

    def _padded(self, prompts: list[list[int]], side: Literal["left", "right"]) -> dict[str, Tensor]:
        mask = _pad([[1] * len(prompt) for prompt in prompts], 0, side).bool()
        tokens = _pad(prompts, self.tokenizer.pad_token_id, side)
        return {OBS_LANGUAGE_TOKENS: tokens, OBS_LANGUAGE_ATTENTION_MASK: mask}

    def _tokenize(self, text: str) -> list[int]:
        # The tokenizer itself: transformers' call around it takes longer than the work.
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    @staticmethod
    def _tasks(transition: EnvTransition, batch_size: int) -> list[str]:
        tasks = (transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        tasks = [tasks] * batch_size if isinstance(tasks, str) else tasks
        if not tasks or any(not isinstance(task, str) or not task.strip() for task in tasks):
            raise ValueError(
                f"No task text: the observation has task={tasks!r}, expected one sentence per sample. Datasets carry "
                "it in meta/tasks.parquet; on a robot give --task='pick up the cube'."
            )
        if len(tasks) != batch_size:
            raise ValueError(
                f"{len(tasks)} task texts for a batch of {batch_size}: expected one for each sample."
            )
        return list(tasks)

    def get_config(self) -> dict[str, Any]:
        return {**asdict(self.images), "answers": self.answers}

    def state_dict(self) -> dict[str, Tensor]:
        text = self.tokenizer.backend_tokenizer.to_str().encode()
        pad = torch.tensor(self.tokenizer.pad_token_id)
        return {"tokenizer_json": torch.frombuffer(bytearray(text), dtype=torch.uint8), "pad_token_id": pad}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer.from_str(bytes(state["tokenizer_json"].cpu().numpy()).decode())
        pad_token = tokenizer.id_to_token(int(state["pad_token_id"]))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad_token)

    def transform_features(self, features: Features) -> Features:
        return features


def _is_finite(values: Tensor) -> bool:
    """Whether all values are finite; a sum passes NaN and infinity on, and takes a tenth of looking at each value."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _pad(rows: list[list[int]], value: int, side: Literal["left", "right"]) -> Tensor:
    """(rows, longest row), filled up with `value` on one side."""
    # Through NumPy, which takes lists an order of magnitude faster than torch does.
    padded = np.full((len(rows), max(map(len, rows))), value)
    for line, row in zip(padded, rows, strict=True):
        start = 0 if side == "right" else len(line) - len(row)
        line[start : start + len(row)] = row
    return torch.from_numpy(padded)
