"""The plugin's processor steps. LeRobot rebuilds a checkpoint's pipeline from each step's configuration and state
alone, so the tokenizer travels as a tensor of bytes in the prompt step's state."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import ObservationProcessorStep, ProcessorStepRegistry
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_PREFIX
from torch import Tensor

from lerobot_gem.processing.chat import ACTION_SUFFIX, user_turn

Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]


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
            if not isinstance(value, Tensor) or not key.startswith(OBS_PREFIX) or key.endswith("_depth"):
                continue  # invalid pixels are part of a depth map
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(
                    f"{key} holds NaN or infinite values: expected finite numbers. Check the sensor or the data set "
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
                    "Use the robot or data set that the policy was trained for, or train a new policy."
                )
        return observation

    def get_config(self) -> dict[str, Any]:
        return asdict(self)

    def transform_features(self, features: Features) -> Features:
        return features


@dataclass
@ProcessorStepRegistry.register(name="gem_prompt")
class PromptStep(ObservationProcessorStep):
    """Writes the prompt of each sample: one vision span per image, then the task.

    Adds `observation.language.tokens` (B, L) int64, padded on the left, and
    `observation.language.attention_mask` (B, L) bool. Nothing is truncated.

    Attributes:
        cameras: Camera keys in prompt order.
        layout: "separate" or "concat" (see `CameraImages`).
        patch_size: Side of a vision patch in pixels.
        temporal_patch_size: Frames of a vision patch.
        merge_size: Patches per side of one visual token.
        min_pixels: Smallest image area after resizing.
        max_pixels: Largest image area after resizing.
        tokenizer: The tokenizer, when the pipeline is made anew; a loaded pipeline takes it from its state.
    """

    cameras: list[str]
    layout: str
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    tokenizer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._encoded: dict[str, list[int]] = {}

    @cached_property
    def images(self) -> Any:
        from lerobot_gem.processing.images import CameraImages

        return CameraImages(**{**self.get_config(), "cameras": tuple(self.cameras)})

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        tasks = self._tasks(self.transition, batch_size=observation[self.cameras[0]].shape[0])
        image_tokens = self.images.token_counts(observation)
        suffix = ACTION_SUFFIX if self.layout == "concat" else ""
        rows = [self._encode(user_turn(task, image_tokens) + suffix) for task in tasks]

        length = max(len(row) for row in rows)
        tokens = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), length), dtype=torch.bool)
        for i, row in enumerate(rows):
            tokens[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = True
        return {**observation, OBS_LANGUAGE_TOKENS: tokens, OBS_LANGUAGE_ATTENTION_MASK: mask}

    def _encode(self, text: str) -> list[int]:
        # Robot data has few tasks and many frames: each prompt is tokenized once.
        if text not in self._encoded:
            self._encoded[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._encoded[text]

    @staticmethod
    def _tasks(transition: EnvTransition, batch_size: int) -> list[str]:
        tasks = (transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        tasks = [tasks] * batch_size if isinstance(tasks, str) else tasks
        if not tasks or any(not isinstance(task, str) or not task.strip() for task in tasks):
            raise ValueError(
                f"No task text: the observation has task={tasks!r}, expected one sentence per sample. Data sets carry "
                "it in meta/tasks.parquet; on a robot give --task='pick up the cube'."
            )
        if len(tasks) != batch_size:
            raise ValueError(
                f"{len(tasks)} task texts for a batch of {batch_size}: expected one for each sample."
            )
        return list(tasks)

    def get_config(self) -> dict[str, Any]:
        return {
            "cameras": list(self.cameras),
            "layout": self.layout,
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
        }

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
