"""Statistics that normalisation divides by: whether they are finite, and which dimensions stand still.

LeRobot's normaliser divides by a standard deviation or a range plus 1e-8. A dimension that is constant in the data then
turns a sensor's tick of a thousandth into 100 000 standard deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.configs import NormalizationMode
from lerobot.utils.constants import ACTION
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
    """Dimensions of a vector that are constant in the data, or nearly: what normalisation divides by is next to nothing.

    Args:
        stats: Of the vector, as in meta/stats.json.
        mode: How it is normalised. Without normalisation nothing can explode, and no dimension is listed. Quantiles leave out
            what is rare: what stands still between them stands still, whatever it does in the other frames.
    """
    if mode not in READ or "min" not in stats or "max" not in stats:
        return []
    values = {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in stats.items()}
    scale = np.maximum(np.maximum(np.abs(values["min"]), np.abs(values["max"])), 1.0)
    spread = values["max"] - values["min"]
    first, second = READ[mode]
    if mode == NormalizationMode.MEAN_STD:
        # The range of evenly spread values with this standard deviation; small beside `spread` where few frames are elsewhere.
        spread = np.minimum(spread, 2 * np.sqrt(3) * values.get(second, np.inf))
    elif first in values and second in values:
        spread = values[second] - values[first]
    return np.flatnonzero(spread <= STILL_RANGE * scale).tolist()


def stands_still(key: str, dimensions: Sequence[int | str], *, is_read: bool) -> str:
    """What to say of dimensions that stand still.

    Args:
        key: Of the vector.
        dimensions: Their positions or names.
        is_read: Whether the policy normalises them all the same.
    """
    said = f"{key} stands still in the dataset, or nearly, in the dimension(s) {', '.join(map(str, dimensions))}: "
    if key == ACTION:
        return said + "there is nothing to learn, and the policy repeats the value."
    if is_read:
        return (
            said
            + "a sensor's tick becomes thousands of standard deviations. Leave --policy.outlier_limit at its default, which reads such "
            "numbers as their mean."
        )
    return (
        said
        + "the mean is read there, so that a sensor's tick does not become thousands of standard deviations. To read what is measured "
        "all the same, train with --policy.outlier_limit=null."
    )


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
