"""What stands still in the data, and what is out of bounds."""

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode

from lerobot_gem.processing.statistics import Limits, stands_still, still_dimensions

MODE = NormalizationMode.MEAN_STD


@pytest.mark.parametrize(
    ("low", "high", "stands_still"),
    [
        (0.5, 0.5, True),
        (0.5, 0.5009, True),  # less than a millimetre
        (0.5, 0.502, False),
        (89.96, 90.04, True),  # less than a tick of a 12-bit encoder, in degrees
        (89.9, 90.1, False),
        (0.0, 0.04, False),  # a gripper, in metres
        (np.nan, np.nan, False),
    ],
)
def test_what_stands_still(low: float, high: float, stands_still: bool):
    stats = {"min": np.array([-1.0, low]), "max": np.array([1.0, high])}
    assert still_dimensions(stats, MODE) == ([1] if stands_still else [])
    assert still_dimensions(stats, NormalizationMode.IDENTITY) == []


def test_what_stands_still_between_quantiles_or_but_for_a_frame():
    """What is rare is no part of what these modes divide by."""
    stats = {
        "min": np.array([0.0, -1.0]),
        "max": np.array([1.0, 1.0]),
        "q01": np.array([0.0, -0.9]),
        "q99": np.array([0.0004, 0.9]),
        "std": np.array([1e-5, 0.5]),
    }
    assert still_dimensions(stats, NormalizationMode.QUANTILES) == [0]
    assert still_dimensions(stats, NormalizationMode.QUANTILE10) == []  # whose quantiles are not there
    assert still_dimensions(stats, NormalizationMode.MEAN_STD) == [0]
    assert still_dimensions(stats, NormalizationMode.MIN_MAX) == []


def test_what_is_said_of_it():
    assert "the mean is read there" in stands_still("observation.state", [2], is_read=False)
    assert "thousands of standard deviations" in stands_still("observation.state", [2], is_read=True)
    assert "nothing to learn" in stands_still("action", ["grip"], is_read=False)


def test_bounds():
    values = torch.tensor([[0.5, -50.0, 3.0, torch.nan]])
    torch.testing.assert_close(Limits().of_state(values), values, equal_nan=True)
    bounded = Limits(state=10.0, still=(2,)).of_state(values)
    torch.testing.assert_close(bounded, torch.tensor([[0.5, -10.0, 0.0, torch.nan]]), equal_nan=True)
    assert values[0, 2] == 3
    assert Limits(action=10.0).of_action(values)[0, 1] == -10
    assert Limits(state=10.0).of_action(values)[0, 1] == -50
