"""Scores of relative depth, on depth images whose score is known."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lerobot_gem.evaluation.depth_metrics import score_depth
from lerobot_gem.processing.depth_target import depth_values, is_inverse, paint, relative_depth

INVERSE = pytest.mark.parametrize("inverse", [True, False])


def scene() -> Tensor:
    """A floor from 3 to 0.5 m with a box at 0.8 m on it (1, H, W)."""
    depth = torch.linspace(3, 0.5, 48)[:, None].repeat(1, 64)
    depth[24:36, 16:32] = 0.8
    return depth[None]


def shown(depth: Tensor, inverse: bool) -> Tensor:
    """Nearness, as exact as can be."""
    return 1 / depth if inverse else -depth


@INVERSE
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.2, 5), (30, -7)])
def test_what_is_right_up_to_scale_and_shift_is_perfect(inverse, scale, shift):
    depth = scene()
    scores = score_depth(scale * shown(depth, inverse) + shift, depth, inverse=inverse)
    assert scores.abs_rel == pytest.approx(0, abs=1e-5)
    assert scores.delta == 1
    assert scores.rank_correlation == pytest.approx(1)


@INVERSE
def test_the_other_space_is_right_in_order_alone(inverse):
    depth = scene()
    scores = score_depth(shown(depth, not inverse), depth, inverse=inverse)
    assert scores.rank_correlation == pytest.approx(1)
    assert scores.abs_rel > 0.01


@INVERSE
def test_noise_scores_about_as_a_flat_image_and_clearly_worse_than_the_truth(inverse):
    depth = scene()
    noise = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0))
    random = score_depth(noise, depth, inverse=inverse)
    flat = score_depth(torch.full_like(depth, 0.3), depth, inverse=inverse)
    assert random.abs_rel == pytest.approx(flat.abs_rel, rel=0.05)
    assert random.abs_rel > 0.2 and random.delta < 0.6
    assert abs(random.rank_correlation) < 0.1
    assert flat.rank_correlation == 0


def test_a_flat_image_is_the_best_constant():
    depth = scene()
    mean = depth.mean()
    scores = score_depth(torch.zeros_like(depth), depth, inverse=False)
    assert scores.abs_rel == pytest.approx(((depth - mean).abs() / depth).mean().item(), rel=1e-5)
    ratio = torch.maximum(depth / mean, mean / depth)
    assert scores.delta == pytest.approx((ratio < 1.25).float().mean().item(), rel=1e-5)


@INVERSE
def test_upside_down_is_told_by_the_rank_alone(inverse):
    depth = scene()
    scores = score_depth(-shown(depth, inverse), depth, inverse=inverse)
    assert scores.abs_rel == pytest.approx(0, abs=1e-5)
    assert scores.rank_correlation == pytest.approx(-1)


def test_rank_correlation_is_scipys():
    random = torch.Generator().manual_seed(1)
    depth = 1 + torch.rand(1, 8, 8, generator=random)
    nearness = 1 / depth + torch.rand(1, 8, 8, generator=random)
    expected = spearmanr(nearness.flatten(), 1 / depth.flatten()).statistic
    assert score_depth(nearness, depth, inverse=True).rank_correlation == pytest.approx(expected)


@INVERSE
@pytest.mark.parametrize("invalid", [0.0, 0.01, 10.0, math.nan, math.inf])
def test_invalid_pixels_do_not_count(inverse, invalid):
    depth = scene()
    nearness = shown(depth, inverse)
    depth[:, :10] = invalid
    nearness[:, :10] = 123
    scores = score_depth(nearness, depth, inverse=inverse)
    assert scores.abs_rel == pytest.approx(0, abs=1e-5)
    assert scores.rank_correlation == pytest.approx(1)


def test_estimates_stay_in_the_valid_range():
    """A straight line through inverse depth can pass zero, where depth would be infinite or negative."""
    depth = torch.full((1, 10, 10), 9.0)
    depth[:, 0] = 0.2
    nearness = torch.zeros_like(depth)
    nearness[:, 0, 0], nearness[:, 9] = 50, -50
    scores = score_depth(nearness, depth, inverse=True)
    assert 0 < scores.abs_rel < (9.99 - 0.2) / 0.2


@pytest.mark.parametrize("colormap", ["spectral", "inferno"])
def test_the_depth_image_that_is_learned_is_nearly_perfect(colormap):
    depth = scene()
    depth_image = paint(depth_values(depth[None], colormap), colormap) / 2 + 0.5
    scores = score_depth(relative_depth(depth_image, colormap)[0], depth, inverse=is_inverse(colormap))
    assert scores.abs_rel < 0.02
    assert scores.delta > 0.99
    assert scores.rank_correlation > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nearness": torch.ones(1, 4, 4)}, r"shape \(1, 4, 4\), depth \(1, 48, 64\): expected one shape"),
        ({"depth": torch.zeros(1, 48, 64)}, r"No valid depth: expected some between 0.011 and 9.99 m"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        score_depth(**{"nearness": scene(), "depth": scene(), "inverse": True, **change})
