"""Numbers that are not finite: found, and told with the frame they are from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def is_finite(values: Tensor) -> bool:
    """Whether all values are finite; a sum passes NaN and infinity on, and takes a tenth of looking at each value."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def check_finite(key: str, values: Tensor, batch: Mapping[str, Any], advice: str) -> None:
    """Raise a ValueError that names the first value that is not finite, if there is one.

    On an accelerator, it waits for the values.

    Args:
        key: What the values are, for the message.
        values: (B, ...).
        batch: May hold the `index` (B,) and `episode_index` (B,) of the samples.
        advice: What to do, in one sentence.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    if not values.is_floating_point() or is_finite(values):
        return
    place = tuple(int(position) for position in (~values.isfinite()).nonzero()[0])
    raise not_finite(key, values[place].item(), place[1:], frame_name(batch, place[0]), advice)


def not_finite(key: str, value: float, place: Sequence[int], frame: str, advice: str) -> ValueError:
    """The error of one number that is not finite.

    Args:
        key: What the number belongs to.
        value: NaN or infinite.
        place: Position of the number in the value of one frame.
        frame: Which frame, in words (`frame_name`).
        advice: What to do, in one sentence.
    """
    inside = f"[{', '.join(map(str, place))}]" if place else ""
    return ValueError(
        f"{key}{inside} is {value} in {frame}: expected finite numbers, no NaN and nothing infinite. {advice}"
    )


def frame_name(batch: Mapping[str, Any], sample: int, ahead: int = 0) -> str:
    """The frame that a sample of a batch is from, in words: its index in the dataset.

    Args:
        batch: May hold the `index` (B,) and `episode_index` (B,) of the samples, which a robot's observation lacks.
        sample: Position in the batch.
        ahead: How many frames later it is.
    """
    index = _number(batch, "index", sample)
    if index is None:
        return f"observation {sample} of the batch"
    episode = _number(batch, "episode_index", sample)
    return f"frame {index + ahead}" + ("" if episode is None else f" (episode {episode})")


def _number(batch: Mapping[str, Any], key: str, sample: int) -> int | None:
    values = batch.get(key)
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) <= sample:
        return None
    return int(values[sample])


def first_broken_parameter(model: torch.nn.Module) -> str | None:
    """Name of the first weight that holds NaN or infinity, if one does."""
    return next((name for name, weight in model.named_parameters() if not is_finite(weight.detach())), None)
