"""Prompts without some of their cameras, or without their instruction, to train a policy that leans on neither alone.

The release leaves out each camera's image with probability 0.1, and empties the instruction with 0.1 (its
`GEM-VLA/train/dataset.py`, `cond_mask_prob`). What is left is the prompt that `PromptStep` would have written for the other
cameras, or for an empty task. Different on purpose: one camera always stays, where the release may drop all of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from lerobot_gem.processing.steps import OBS_GRID_THW, OBS_INSTRUCTION, OBS_PIXEL_VALUES, OBS_SHOWN


class Kept(NamedTuple):
    """What stays of each sample's prompt.

    Attributes:
        cameras: (B, C) bool, one of each sample at least.
        instructions: (B,) bool.
    """

    cameras: Tensor
    instructions: Tensor


def draw_kept(
    batch_size: int,
    cameras: int,
    *,
    camera_dropout: float,
    instruction_dropout: float,
    device: torch.device,
) -> Kept:
    """Draw what stays, from torch's generator; a probability of 0 draws nothing.

    Args:
        batch_size: Samples B.
        cameras: Cameras C of a prompt.
        camera_dropout: Probability to leave out each camera. Where all would go, one of them stays.
        instruction_dropout: Probability to empty the instruction.
        device: Of the result.
    """
    kept_cameras = torch.ones(batch_size, cameras, dtype=torch.bool, device=device)
    if camera_dropout > 0:
        drawn = torch.rand(batch_size, cameras, device=device)
        kept_cameras = (drawn >= camera_dropout) | (drawn == drawn.amax(dim=1, keepdim=True))
    kept_instructions = torch.ones(batch_size, dtype=torch.bool, device=device)
    if instruction_dropout > 0:
        kept_instructions = torch.rand(batch_size, device=device) >= instruction_dropout
    return Kept(kept_cameras, kept_instructions)


def leave_out(
    batch: Mapping[str, Tensor], kept: Kept, *, vision_start: int, vision_end: int
) -> dict[str, Tensor]:
    """A preprocessed batch whose prompts hold what is kept, and nothing else.

    Args:
        batch: As `PromptStep` wrote it for acting: each prompt has one vision span for each camera.
        kept: What stays.
        vision_start: Token before an image's tokens.
        vision_end: Token after them.

    Returns:
        The batch with shorter prompts, padded on the left, without the patches of what is left out, and with `OBS_SHOWN`.
    """
    tokens = batch[OBS_LANGUAGE_TOKENS]
    started = (tokens == vision_start).cumsum(dim=1)
    # Where a span ends, its last token still belongs to it.
    ended = (tokens == vision_end).cumsum(dim=1) - (tokens == vision_end).long()
    shown = kept.cameras.gather(1, (started - 1).clamp(min=0))
    keep = batch[OBS_LANGUAGE_ATTENTION_MASK].bool() & ((started == ended) | shown)
    keep &= ~batch[OBS_INSTRUCTION] | kept.instructions[:, None]
    # A stable sort: what is kept moves to the right and stays in order.
    length = int(keep.sum(dim=1).amax())
    order = keep.long().argsort(dim=1, stable=True)[:, -length:]
    mask = keep.gather(1, order)
    # What pads must be no image token, which would wait for a feature: each prompt's last token is text.
    padded = tokens.gather(1, order).where(mask, tokens[:, -1:])
    images = kept.cameras.flatten()
    patches = images.repeat_interleave(batch[OBS_GRID_THW].prod(dim=1))
    return {
        **batch,
        OBS_LANGUAGE_TOKENS: padded,
        OBS_LANGUAGE_ATTENTION_MASK: mask,
        OBS_INSTRUCTION: batch[OBS_INSTRUCTION].gather(1, order) & mask,
        OBS_PIXEL_VALUES: batch[OBS_PIXEL_VALUES][patches],
        OBS_GRID_THW: batch[OBS_GRID_THW][images],
        OBS_SHOWN: kept.cameras.nonzero(),
    }
