"""How well a depth image tells depth, when depth is known up to scale and shift alone.

AbsRel and delta are taken after the alignment that is the custom for relative depth (MiDaS, arXiv 1907.01341): a scale
and a shift for each image, by least squares over its valid pixels, in the space that the colormap shows: inverse depth
for "spectral", depth for "inferno". Aligned depth is clipped to the range that counts as valid. Two of an image's
degrees of freedom are thus fitted to the truth, and a flat image becomes the best constant: compare with what that
scores, not with nothing. The rank correlation needs no alignment and shows that an image is upside down, which the least
squares would turn over.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from lerobot_gem.processing.depth_target import MAX_DEPTH, MIN_DEPTH, is_valid

_DELTA = 1.25


class DepthScores(NamedTuple):
    """Scores of one image.

    Attributes:
        abs_rel: Mean of |estimate - depth| / depth; 0 is perfect.
        delta: Share of pixels whose estimate is less than 1.25 times too large or too small; 1 is perfect.
        rank_correlation: Spearman's, of nearness with nearness; 1 is perfect, -1 upside down, and 0 where either is
            constant, so that nothing is ordered.
    """

    abs_rel: float
    delta: float
    rank_correlation: float


def score_depth(nearness: Tensor, depth: Tensor, *, inverse: bool) -> DepthScores:
    """Compare what a depth image tells with measured depth, over the pixels where depth is valid.

    Args:
        nearness: What `relative_depth` reads off the depth image, larger where it is nearer; any scale and shift.
        depth: In metres, of the same shape.
        inverse: Nearness is affine in inverse depth, not in depth (`is_inverse`).

    Raises:
        ValueError: The shapes differ, or no pixel is valid.
    """
    if nearness.shape != depth.shape:
        raise ValueError(
            f"Nearness has shape {tuple(nearness.shape)}, depth {tuple(depth.shape)}: expected one shape; resize the "
            "nearness."
        )
    valid = is_valid(depth)
    if not valid.any():
        raise ValueError(f"No valid depth: expected some between {MIN_DEPTH} and {MAX_DEPTH} m.")
    near, true = (values[valid].double().cpu().numpy() for values in (nearness, depth))
    shown, low, high = (1 / true, 1 / MAX_DEPTH, 1 / MIN_DEPTH) if inverse else (true, MIN_DEPTH, MAX_DEPTH)
    (scale, shift), *_ = np.linalg.lstsq(np.stack([near, np.ones_like(near)], axis=1), shown)
    aligned = (scale * near + shift).clip(low, high)
    estimate = 1 / aligned if inverse else aligned
    return DepthScores(
        abs_rel=float(np.mean(np.abs(estimate - true) / true)),
        delta=float(np.mean(np.maximum(estimate / true, true / estimate) < _DELTA)),
        rank_correlation=_rank_correlation(near, -true),
    )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)
