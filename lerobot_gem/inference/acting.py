"""From an observation to a chunk of actions, as often as a robot asks for one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lerobot_gem.models.action_expert import ActionExpert, Integrator
from lerobot_gem.models.backbone import GemBackbone, ImageFeatures, PreparedPrompt
from lerobot_gem.models.conditioning import Conditioning
from lerobot_gem.models.presets import Reading


class Observation(NamedTuple):
    """What a policy reads of a preprocessed batch.

    Args:
        tokens: (B, L), of the prompts.
        mask: (B, L), True where a token is real.
        pixel_values: (P, patch_dim), the patches of all images.
        image_grid_thw: (N, 3), patches of each image in time, height and width.
        state: (B, state_dim), normalised; None for an expert that reads none.
    """

    tokens: Tensor
    mask: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor
    state: Tensor | None


class ChunkInputs(NamedTuple):
    """What a chunk is computed from, prompts prepared; tensors that may change while their shapes stay.

    Args:
        prompt: Of the observation.
        mask: Of the observation.
        pixel_values: Of the observation.
        state: Of the observation.
        noise: (B, T, A), where the chunk starts from.
    """

    prompt: PreparedPrompt
    mask: Tensor
    pixel_values: Tensor
    state: Tensor | None
    noise: Tensor


def see(backbone: GemBackbone, inputs: ChunkInputs) -> ImageFeatures:
    """The vision tower."""
    return backbone.see(inputs.pixel_values, inputs.prompt.images)


def read(
    backbone: GemBackbone,
    expert: ActionExpert,
    inputs: ChunkInputs,
    seen: ImageFeatures,
    layers: Sequence[int],
    convention: Reading,
) -> Conditioning:
    """The decoder, and what the expert reads of it."""
    states = backbone.read(inputs.prompt, seen, layers=layers, convention=convention)
    return expert.encode_conditioning(states, inputs.mask)


def denoise(expert: ActionExpert, inputs: ChunkInputs, conditioning: Conditioning, steps: int) -> Tensor:
    """The expert, from noise to a chunk."""
    return expert.sample(conditioning, inputs.state, inputs.noise, num_steps=steps)


@dataclass(frozen=True)
class ChunkSampler:
    """A policy's way from observation to chunk.

    Args:
        backbone: Read up to the last of `layers`.
        expert: Samples the chunk.
        layers: Decoder layer that each block of the expert reads.
        convention: What is read of it (`models/conditioning.py`).
        see: The vision tower, as the function of this name or compiled.
        read: The decoder.
        denoise: The expert.
    """

    backbone: GemBackbone
    expert: ActionExpert
    layers: tuple[int, ...]
    convention: Reading
    see: Callable[..., ImageFeatures] = see
    read: Callable[..., Conditioning] = read
    denoise: Callable[..., Tensor] = denoise

    def __call__(self, inputs: ChunkInputs, steps: int, integrate: Integrator | None = None) -> Tensor:
        """Sample a chunk.

        Args:
            inputs: Of one batch.
            steps: Euler steps from noise to actions.
            integrate: Another integrator than the expert's own, which `denoise` does not compile.

        Returns:
            (B, T, A).
        """
        seen = self.see(self.backbone, inputs)
        conditioning = self.read(self.backbone, self.expert, inputs, seen, self.layers, self.convention)
        if integrate is not None:
            return self.expert.sample(
                conditioning, inputs.state, inputs.noise, num_steps=steps, integrate=integrate
            )
        return self.denoise(self.expert, inputs, conditioning, steps)


class PromptMemory:
    """The last prompts that were prepared, so that an episode prepares them once."""

    def __init__(self) -> None:
        self._given: tuple[Tensor, ...] = ()
        self._weights: list[tuple[int, int | None]] = []
        self._prepared: PreparedPrompt | None = None

    def prepare(self, backbone: GemBackbone, observation: Observation) -> PreparedPrompt:
        """`backbone.prepare`, or what it gave the last time.

        The processor hands out the same tensors as long as the prompts stay the same, so that nothing is looked at, and the
        host does not wait for the device. Equal tensors of other origin cost one look at them.
        """
        given = observation.tokens, observation.mask, observation.image_grid_thw
        # What is kept depends on these weights too, which may be trained or loaded in between.
        weights = [
            (weight.data_ptr(), None if weight.is_inference() else weight._version)
            for weight in (
                backbone.model.get_input_embeddings().weight,
                backbone.model.visual.pos_embed.weight,
            )
        ]
        if self._prepared is None or weights != self._weights or not _are_equal(given, self._given):
            self._prepared = backbone.prepare(*given)
        self._given, self._weights = given, weights
        return self._prepared


def _are_equal(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(tensors) == len(others) and all(
        tensor is other
        or (
            tensor.shape == other.shape and tensor.device == other.device and bool(torch.equal(tensor, other))
        )
        for tensor, other in zip(tensors, others, strict=True)
    )
