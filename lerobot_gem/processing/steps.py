"""The plugin's processor steps.

LeRobot rebuilds a checkpoint's pipeline from each step's configuration and state alone, so the tokenizer travels as a
tensor of bytes in the prompt step's state.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import (
    ObservationProcessorStep,
    PolicyActionProcessorStep,
    ProcessorStep,
    ProcessorStepRegistry,
)
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from lerobot_gem.processing.chat import ACTION_SUFFIX, TURN_END, Prompt, conversation, user_turn
from lerobot_gem.processing.finite import check_finite, frame_name, is_finite, not_finite
from lerobot_gem.processing.images import CameraImages
from lerobot_gem.processing.language import (
    EVENTS,
    MESSAGES,
    PERSISTENT,
    BoundLanguage,
    Message,
    Row,
    check_cameras_of,
    conversations,
    messages_of_rows,
    messages_of_task,
    parse_messages,
)
from lerobot_gem.processing.tokenizer import check_normalizer, encode

logger = logging.getLogger(__name__)

OBS_PIXEL_VALUES = (
    "observation.pixel_values"  # (P, patch_dim), the patches of all images of the prompts, in order
)
OBS_GRID_THW = "observation.grid_thw"  # (N, 3), patches of each image in time, height and width
OBS_INSTRUCTION = "observation.language.instruction"  # (B, L) bool, True at the task's tokens, when acting
OBS_LABELS = "observation.language.labels"  # (R, L): the token where it is learned, else IGNORED
OBS_ROW_SAMPLES = "observation.language.samples"  # (R,): which sample a prompt belongs to
OBS_SHOWN = "observation.language.images"  # (N, 2): sample and camera of each vision span, in order
# Prompts of their own, (R, L) with images of theirs: a dictionary of the keys above, where questions are learned beside actions.
OBS_QUESTIONS = "observation.questions"
QUESTION_KEYS = (
    OBS_LANGUAGE_TOKENS,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LABELS,
    OBS_ROW_SAMPLES,
    OBS_SHOWN,
    OBS_PIXEL_VALUES,
    OBS_GRID_THW,
)
IGNORED = -100

_LOOK = "Check the sensor, or correct the frame or delete its episode (lerobot-dataset-viz shows it; lerobot-gem-check names all)."

Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]


@ProcessorStepRegistry.register(name="gem_language_rows")
class LanguageRowsStep(ProcessorStep):
    """Gives every sample its messages (see processing/language.py), wherever they come from.

    Stands before LeRobot's batch step, which drops language columns. Reads the batch's `messages`, its language columns
    if LeRobot delivers them, else those of the dataset bound to the step, else the task.

    Args:
        tasks: Ask for the task where a frame has nothing else.
    """

    # LeRobot rebuilds the pipeline of a checkpoint from its files, and tells it neither the dataset nor the policy, so that no
    # instance can be handed anything. The policy is told, and built first: what it was told last is what the next step is bound
    # to, for good. A step that got another dataset's table so is found out by the table (`LanguageTable.rows`).
    _latest: ClassVar[BoundLanguage | None] = None

    def __init__(self, *, tasks: bool = True) -> None:
        self.tasks = tasks
        self._bound = self._latest

    @classmethod
    def bind(cls, language: BoundLanguage) -> None:
        """Let steps that are made from now on read the language rows of a dataset."""
        cls._latest = language

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._bound = self._bound or self._latest  # a step that was made before any policy was told
        data = dict(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {})
        if MESSAGES in data:
            entries = data[MESSAGES]
            data[MESSAGES] = self._parse([entries] if isinstance(entries, str) else entries)
        elif isinstance(data.get("index"), Tensor) and data["index"].ndim:  # else it is no training batch
            data[MESSAGES] = self._look_up(data, transition.get(TransitionKey.ACTION))
        return {**transition, TransitionKey.COMPLEMENTARY_DATA: data}

    def _parse(self, entries: Sequence[str]) -> list[list[Message]]:
        parsed = [parse_messages(text) for text in entries]
        if self._bound is not None:
            check_cameras_of(chain.from_iterable(parsed), self._bound.cameras, "the column 'messages'")
        return parsed

    def _look_up(self, data: dict[str, Any], actions: Any) -> list[list[Message]]:
        indices = data["index"].tolist()
        tasks = data.get("task") or [None] * len(indices)
        messages = []
        for position, (index, task) in enumerate(zip(indices, tasks, strict=True)):
            if PERSISTENT in data or EVENTS in data:
                persistent, events = (
                    data[column][position] or [] if column in data else [] for column in (PERSISTENT, EVENTS)
                )
            else:
                persistent, events = self._rows(data, actions, position)
            found = messages_of_rows(
                persistent, events, timestamp=float(data["timestamp"][position]), task=task, index=index
            )
            if self.tasks and not found and task and task.strip():
                found = messages_of_task(task, index)
            messages.append(found)
        return messages

    def _rows(self, data: dict[str, Any], actions: Any, position: int) -> tuple[list[Row], list[Row]]:
        """Persistent and event rows of a sample, from the dataset that the step is bound to."""
        if self._bound is None or self._bound.table is None:
            return [], []
        known = {
            name: data[name] for name in ("episode_index", "timestamp", "task") if data.get(name) is not None
        }
        if isinstance(actions, Tensor):
            # A chunk begins with the frame's own.
            known[ACTION] = actions if actions.ndim == 2 else actions[:, 0]
        # As plain values, for the message.
        return self._bound.table.rows(
            int(data["index"][position]),
            {
                name: values[position].tolist() if isinstance(values, Tensor) else values[position]
                for name, values in known.items()
            },
        )

    def get_config(self) -> dict[str, Any]:
        return {} if self.tasks else {"tasks": False}

    def transform_features(self, features: Features) -> Features:
        return features


@dataclass
@ProcessorStepRegistry.register(name="gem_check_observation")
class CheckObservationStep(ObservationProcessorStep):
    """Stops at the first frame that is not finite or not of the size that the policy was built for.

    Stands before the device step, where looking at the numbers makes nobody wait. Vectors that the policy does not read are
    not looked at.

    Attributes:
        state_sizes: Size of each state vector that the policy reads, by observation key.
        checks_actions: Whether the policy learns from actions.
    """

    state_sizes: dict[str, int] = field(default_factory=dict)
    checks_actions: bool = False

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        frames = self.transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        for key, value in observation.items():
            # Invalid pixels are part of a depth map, the one kind of image with one channel.
            is_image = isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] != 1
            if is_image or (isinstance(value, Tensor) and key in self.state_sizes):
                check_finite(key, value, frames, _LOOK)
        action = self.transition.get(TransitionKey.ACTION)
        if self.checks_actions and isinstance(action, Tensor):
            _check_actions(action, frames)
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


@ProcessorStepRegistry.register(name="gem_check_action")
class CheckActionStep(PolicyActionProcessorStep):
    """Stops before an action that is not finite reaches a robot.

    Stands last, behind the step that copies actions to the CPU, which has waited for them already.
    """

    def action(self, action: Tensor) -> Tensor:
        check_finite(
            ACTION,
            action,
            {},
            "The policy's own output is finite, so the statistics in its policy_postprocessor files are not: train it on a "
            "dataset that lerobot-gem-check passes.",
        )
        return action

    def transform_features(self, features: Features) -> Features:
        return features


@ProcessorStepRegistry.register(name="gem_prompt")
class PromptStep(ObservationProcessorStep):
    """Writes the prompts, vision spans, then text, and cuts their images into patches. Nothing is truncated.

    For acting, each sample has one prompt of all its images and its task. It adds
    `observation.language.tokens` (B, L) int64, padded on the left, `observation.language.attention_mask` (B, L) bool,
    `OBS_INSTRUCTION`, `OBS_PIXEL_VALUES` and `OBS_GRID_THW`, all on the device of the frames.

    With `answers`, each sample has one prompt or more, which show each of its images once (`conversations`), and it adds
    the tokens and mask of all R prompts, padded on the right, and `OBS_LABELS`, `OBS_ROW_SAMPLES` and `OBS_SHOWN`.

    With `questions`, it writes prompts for acting, and under `OBS_QUESTIONS` what `answers` would write of the samples that are asked
    something, if any is; images that nothing is asked about are not shown again.

    Args:
        tokenizer: The tokenizer, when the pipeline is made anew; a loaded pipeline takes it from its state.
        answers: Write questions with answers to be learned instead of prompts for acting.
        questions: Write questions with answers to be learned beside prompts for acting.
        default_task: Acted on where no task is given; what all training batches have as their one task replaces it.
        **images: The fields of `CameraImages`.
    """

    def __init__(
        self,
        *,
        tokenizer: Any = None,
        answers: bool = False,
        questions: bool = False,
        default_task: str = "",
        **images: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.answers = answers
        self.questions = questions
        self.default_task = default_task
        self._trained_tasks: set[str] = set()
        self._told_default = False
        self.images = CameraImages(**images)
        # Robot data has few tasks and many frames; questions may be different each time.
        self._encode = lru_cache(maxsize=1024)(self._tokenize)
        self._moved_last: dict[str, tuple[Tensor, Tensor]] = {}

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        image_tokens = self.images.token_counts(observation)
        frames = observation[self.images.cameras[0]]
        texts, shown = self.texts(self.transition, image_tokens, len(frames))
        patches, grid = self.images.patches(observation, shown)
        moved: dict[str, Any] = {key: self._moved(key, value, frames.device) for key, value in texts.items()}
        if self.questions:
            moved |= self._questions(observation, image_tokens, len(frames))
        return {
            **observation,
            **moved,
            OBS_PIXEL_VALUES: patches.to(frames.device),
            OBS_GRID_THW: self._moved(OBS_GRID_THW, grid, frames.device),
        }

    def _questions(
        self, observation: dict[str, Any], image_tokens: list[int], batch_size: int
    ) -> dict[str, dict[str, Tensor]]:
        """The questions of a batch, on the device of its frames; nothing where none is asked."""
        data = self.transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        if not any(data.get(MESSAGES) or ()):
            return {}
        texts, shown = self._conversations(self.transition, image_tokens, batch_size, only_asked=True)
        if not shown:
            return {}
        patches, grid = self.images.patches(observation, shown)
        asked = {**texts, OBS_PIXEL_VALUES: patches, OBS_GRID_THW: grid}
        device = observation[self.images.cameras[0]].device
        return {OBS_QUESTIONS: {key: value.to(device) for key, value in asked.items()}}

    def _moved(self, key: str, value: Tensor, device: torch.device) -> Tensor:
        """The value on a device: the very tensor of the last observation if the value is the same.

        A policy that prepares prompts once for an episode knows by that, without a look at the device, that they are the same.
        """
        before = self._moved_last.get(key)
        if before is not None:
            known, moved = before
            is_same_place = (
                moved.device == device and moved.is_inference() == torch.is_inference_mode_enabled()
            )
            if is_same_place and torch.equal(known, value):
                return moved
        moved = value.to(device)
        self._moved_last[key] = value, moved
        return moved

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
        suffix = ACTION_SUFFIX if self.images.layout == "concat" else ()
        prompts = [
            self._encoded(user_turn(task, image_tokens) + suffix, transition, sample)
            for sample, task in enumerate(tasks)
        ]
        # Special tokens stand on both sides of the task, so that its tokens are what an empty one lacks.
        without = len(self._encode(user_turn("", image_tokens) + suffix))
        after = len(self._encode(TURN_END + suffix))
        is_task = [
            [0] * (without - after) + [1] * (len(prompt) - without) + [0] * after for prompt in prompts
        ]
        texts = self._padded(prompts, side="left") | {OBS_INSTRUCTION: _pad(is_task, 0, side="left").bool()}
        return texts, None

    def _conversations(
        self,
        transition: EnvTransition,
        image_tokens: list[int],
        batch_size: int,
        *,
        only_asked: bool = False,
    ) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
        data = transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        messages: list[list[Message]] = data.get(MESSAGES) or [[] for _ in range(batch_size)]
        prompts, labels, samples, shown = [], [], [], []
        for sample in range(batch_size):
            for talk in conversations(messages[sample], self.images.cameras):
                if only_asked and not talk.exchanges:
                    continue
                pieces = conversation(talk.exchanges, [image_tokens[camera] for camera in talk.cameras])
                encoded = [(self._encoded(piece, transition, sample), learned) for piece, learned in pieces]
                prompts.append([token for tokens, _ in encoded for token in tokens])
                labels.append(
                    [token if learned else IGNORED for tokens, learned in encoded for token in tokens]
                )
                samples.append(sample)
                shown += [(sample, camera) for camera in talk.cameras]
        if not prompts:
            return {}, []
        texts = {
            **self._padded(prompts, side="right"),
            OBS_LABELS: _pad(labels, IGNORED, side="right"),
            OBS_ROW_SAMPLES: torch.tensor(samples),
            OBS_SHOWN: torch.tensor(shown),
        }
        return texts, shown

    def _encoded(self, prompt: Prompt, transition: EnvTransition, sample: int) -> list[int]:
        try:
            return self._encode(prompt)
        except ValueError as error:
            frame = frame_name(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}, sample)
            raise ValueError(f"{error} It is the text of {frame}.") from error

    def _padded(self, prompts: list[list[int]], side: Literal["left", "right"]) -> dict[str, Tensor]:
        mask = _pad([[1] * len(prompt) for prompt in prompts], 0, side).bool()
        tokens = _pad(prompts, self.tokenizer.pad_token_id, side)
        return {OBS_LANGUAGE_TOKENS: tokens, OBS_LANGUAGE_ATTENTION_MASK: mask}

    def _tokenize(self, prompt: Prompt) -> list[int]:
        return encode(self.tokenizer, prompt)

    def _tasks(self, transition: EnvTransition, batch_size: int) -> list[str]:
        tasks = (transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        tasks = [tasks] * batch_size if isinstance(tasks, str) else tasks
        is_training = transition.get(TransitionKey.ACTION) is not None
        if self.default_task and not is_training and (not tasks or set(tasks) == {""}):
            if not self._told_default:
                logger.warning(
                    f"No task text was given: acting on {self.default_task!r}, the one task that the policy was trained on."
                )
                self._told_default = True
            tasks = [self.default_task] * batch_size
        if not tasks or any(not isinstance(task, str) or not task.strip() for task in tasks):
            raise ValueError(
                f"No task text: the observation has task={tasks!r}, expected one sentence per sample. Datasets carry "
                "it in meta/tasks.parquet; on a robot give --task='pick up the cube'."
            )
        if len(tasks) != batch_size:
            raise ValueError(
                f"{len(tasks)} task texts for a batch of {batch_size}: expected one for each sample."
            )
        if is_training and len(self._trained_tasks) < 2:
            self._trained_tasks |= set(tasks)
            self.default_task = min(self._trained_tasks) if len(self._trained_tasks) == 1 else ""
        return list(tasks)

    def get_config(self) -> dict[str, Any]:
        # What is off is left out, so that earlier versions read what they know.
        questions = {"questions": True} if self.questions else {}
        default = {"default_task": self.default_task} if self.default_task else {}
        return {**asdict(self.images), "answers": self.answers, **questions, **default}

    def state_dict(self) -> dict[str, Tensor]:
        text = self.tokenizer.backend_tokenizer.to_str().encode()
        pad = torch.tensor(self.tokenizer.pad_token_id)
        return {"tokenizer_json": torch.frombuffer(bytearray(text), dtype=torch.uint8), "pad_token_id": pad}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        text = bytes(state["tokenizer_json"].cpu().numpy()).decode()
        check_normalizer(json.loads(text).get("normalizer"))
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()  # to any length that the file names
        tokenizer.no_truncation()
        pad_token = tokenizer.id_to_token(int(state["pad_token_id"]))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad_token)

    def transform_features(self, features: Features) -> Features:
        return features


def _check_actions(actions: Tensor, frames: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the frame whose action is not finite, in chunks (B, T, A) or actions (B, A)."""
    chunks = actions if actions.ndim == 3 else actions[:, None]
    if is_finite(chunks):
        return
    place = tuple(int(position) for position in (~chunks.isfinite()).nonzero()[0])
    sample, ahead = place[:2]
    is_pad = frames.get(f"{ACTION}_is_pad")
    if isinstance(is_pad, Tensor) and is_pad.shape[:2] == chunks.shape[:2]:
        # Past the end of an episode, LeRobot repeats its last frame.
        ahead = min(ahead, max(int((~is_pad[sample]).sum()) - 1, 0))
    [*_, dimension] = place
    raise not_finite(ACTION, chunks[place].item(), [dimension], frame_name(frames, sample, ahead), _LOOK)


def _pad(rows: list[list[int]], value: int, side: Literal["left", "right"]) -> Tensor:
    """(rows, longest row), filled up with `value` on one side."""
    # Through NumPy, which takes lists an order of magnitude faster than torch does.
    padded = np.full((len(rows), max(map(len, rows))), value)
    for line, row in zip(padded, rows, strict=True):
        start = 0 if side == "right" else len(line) - len(row)
        line[start : start + len(row)] = row
    return torch.from_numpy(padded)
