"""What a policy reads, learns and becomes is finite; what is not is told with its cause."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from lerobot_gem.processing.finite import check_finite, first_broken_parameter, is_finite
from lerobot_gem.processing.steps import OBS_PIXEL_VALUES
from lerobot_gem.training.trainable import trainable_parameters

_STATISTICS = (
    "It was finite before it was normalised, so the statistics of the processor are not: train on a dataset that "
    "lerobot-gem-check passes."
)


def check_losses(
    policy: nn.Module, losses: Tensor, logs: Mapping[str, float], batch: Mapping[str, Any]
) -> None:
    """Raise a ValueError if a loss is not finite, before anything learns from it.

    Looks at the logs, which were waited for already.

    Args:
        policy: Whose losses they are.
        losses: (B,), one of each sample.
        logs: Means of the losses.
        batch: Preprocessed.

    Raises:
        ValueError: It names the frame, and what is not finite there.
    """
    if all(math.isfinite(value) for value in logs.values()):
        return
    check_inputs(policy, batch)
    check_finite(
        "The loss",
        losses.detach(),
        batch,
        f"Input and weights are finite ({dict(logs)}): lower the learning rate, or train with --policy.dtype=float32.",
    )
    raise ValueError(f"A loss is not finite: {dict(logs)}. Lower the learning rate.")


def check_inputs(policy: nn.Module, batch: Mapping[str, Any]) -> None:
    """Raise a ValueError if weights or a preprocessed batch hold NaN or infinity.

    Args:
        policy: Whose weights they are.
        batch: Preprocessed.
    """
    broken = first_broken_parameter(policy)
    if broken is not None:
        raise ValueError(
            f"The weights {broken!r} hold NaN or infinity: expected finite numbers. Go on from an earlier checkpoint with a "
            "lower learning rate."
        )
    for key in (OBS_STATE, ACTION, OBS_PIXEL_VALUES):
        if isinstance(batch.get(key), Tensor):
            # Patches have no row for each sample.
            frames = {} if key == OBS_PIXEL_VALUES else batch
            check_finite(f"{key}, normalised,", batch[key], frames, _STATISTICS)


def check_updated(policy: nn.Module, parts: Iterable[nn.Module]) -> None:
    """Raise a ValueError if the last step made weights that are not finite, from a finite loss.

    Args:
        policy: That was trained.
        parts: Of it. Clipping the gradient's norm spreads NaN to all weights alike, so that one of each part is looked at.
    """
    for part in parts:
        for weight in trainable_parameters(part)[-1:]:
            if not is_finite(weight.detach()):
                raise ValueError(
                    f"The last step made weights ({first_broken_parameter(policy)!r}) that are not finite: its loss was finite, its "
                    "gradient not. Lower the learning rate, or train with --policy.dtype=float32; go on from the last "
                    "checkpoint, which is from before that step."
                )
