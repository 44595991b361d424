"""Batches in parts, so that no more than one part's activations are in memory (gradients do not change).

LeRobot 0.6.1 calls `forward` once and `backward` once for each step, and accumulates no gradients. So `forward` computes
the losses of one part after the other and keeps none of their activations; `backward` computes each part anew when it
gets there, the last one first. The price is a second pass forward: a third of the time of a step in which
all of it has a backward pass, more where most of it is frozen.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lerobot_gem.processing.steps import (
    OBS_GRID_THW,
    OBS_PIXEL_VALUES,
    OBS_QUESTIONS,
    OBS_ROW_SAMPLES,
    OBS_SHOWN,
    QUESTION_KEYS,
)


def in_parts[T](
    compute: Callable[[dict[str, Any]], T], batch: Mapping[str, Any], batch_size: int, size: int | None
) -> list[T]:
    """Compute something of a batch, part by part, for a backward pass that keeps one part in memory.

    Args:
        compute: What is made of a part; may draw random numbers, which are drawn again in the backward pass.
        batch: Preprocessed.
        batch_size: Its samples B.
        size: Most samples in a part; None computes all at once and keeps the activations.

    Returns:
        The results of the parts, in order.
    """
    if size is None or size >= batch_size:
        return [compute(dict(batch))]
    return [checkpoint(compute, part, use_reentrant=False) for part in split_batch(batch, batch_size, size)]


def check_divides(size: int, batch_size: int) -> None:
    """Refuse parts that would not be equal.

    Args:
        size: Samples in a part.
        batch_size: Samples B of a whole batch.

    Raises:
        ValueError: It does not divide the batch; the error names sizes that do.
    """
    if size < batch_size and batch_size % size:
        divisors = [part for part in range(1, batch_size + 1) if batch_size % part == 0]
        raise ValueError(
            f"micro_batch_size={size} does not divide a batch of {batch_size} samples: expected one of "
            f"{', '.join(map(str, divisors))} (--policy.micro_batch_size), or a --batch_size for each process that is "
            f"a multiple of {size}."
        )


def split_batch(batch: Mapping[str, Any], batch_size: int, size: int) -> list[dict[str, Any]]:
    """Cut a preprocessed batch into parts of `size` samples; an epoch's last batch may end with a smaller part.

    Patches, images and prompts have rows of their own (docs/contributing/architecture.md): each goes with its sample. So do questions that are
    learned beside actions, which are prompts with images of their own.
    """
    grid = batch[OBS_GRID_THW]
    rows = torch.arange(batch_size, device=grid.device)
    # Without a list of images, each sample has the same number.
    image_samples = (
        batch[OBS_SHOWN][:, 0] if OBS_SHOWN in batch else rows.repeat_interleave(len(grid) // batch_size)
    )
    # Rows that are not samples: prompts, images, patches.
    samples = {
        **dict.fromkeys(QUESTION_KEYS, batch.get(OBS_ROW_SAMPLES, rows)),
        **dict.fromkeys((OBS_GRID_THW, OBS_SHOWN), image_samples),
        OBS_PIXEL_VALUES: image_samples.repeat_interleave(grid.prod(dim=1)),
    }

    questions: list[dict[str, Any]] = [{}] * -(-batch_size // size)
    if OBS_QUESTIONS in batch:
        questions = [{OBS_QUESTIONS: part} for part in split_batch(batch[OBS_QUESTIONS], batch_size, size)]

    def cut(key: str, value: Any, first: int, end: int) -> Any:
        if key in samples:
            value = value[(samples[key] >= first) & (samples[key] < end)]
            if key == OBS_ROW_SAMPLES:
                value = value - first
            elif key == OBS_SHOWN:
                value = value - value.new_tensor([first, 0])
            return value
        is_of_samples = (isinstance(value, Tensor) and value.ndim > 0) or isinstance(value, list)
        return value[first:end] if is_of_samples and len(value) == batch_size else value

    return [
        {key: cut(key, value, first, first + size) for key, value in batch.items()} | asked
        for first, asked in zip(range(0, batch_size, size), questions, strict=True)
    ]
