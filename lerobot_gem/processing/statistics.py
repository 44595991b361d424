"""Statistics that normalisation divides by: whether they are finite, and which dimensions stand still.

LeRobot's normaliser divides by a standard deviation or a range plus 1e-8. A dimension that is constant in the data then
turns a sensor's tick of a thousandth into 100 000 standard deviations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.configs import NormalizationMode
from torch import Tensor

# A dimension whose whole range is below this share of its largest value, or of 1, stands still: less than a millimetre, a
# twentieth of a degree in radians, a tick of a 12-bit encoder at 90 degrees.
STILL_RANGE = 1e-3

# What each mode reads.
READ = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


def still_dimensions(stats: Mapping[str, Any], mode: NormalizationMode) -> list[int]:
    """Dimensions of a vector that are constant in the data, or nearly.

    Args:
        stats: Of the vector, as in meta/stats.json.
        mode: How it is normalised. Without normalisation nothing can explode, and no dimension is listed.
    """
    if mode not in READ or "min" not in stats or "max" not in stats:
        return []
    low, high = (np.atleast_1d(np.asarray(stats[name], dtype=np.float64)) for name in ("min", "max"))
    scale = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1.0)
    return np.flatnonzero(high - low <= STILL_RANGE * scale).tolist()


@dataclass(frozen=True)
class Limits:
    """Keeps normalised vectors in bounds, behind the normaliser. NaN stays NaN.

    Attributes:
        state: Bound of the size of a number of the state; None bounds nothing.
        action: Likewise of an action that is learned.
        still: Dimensions of the state that stand still in the data, and are 0 whatever the sensor says.
    """

    state: float | None = None
    action: float | None = None
    still: tuple[int, ...] = ()

    def of_state(self, state: Tensor) -> Tensor:
        """The state (B, D) in bounds, and without what stands still."""
        bounded = state.clone() if self.state is None else state.clamp(-self.state, self.state)
        for dimension in self.still:
            bounded[..., dimension] = 0
        return bounded

    def of_action(self, action: Tensor) -> Tensor:
        """Actions (..., A) in bounds."""
        return action if self.action is None else action.clamp(-self.action, self.action)
