"""Sums of losses by sample."""

import pytest
import torch

from lerobot_gem.policies.losses import SampleSums

VALUES = torch.tensor([1.0, 2.0, 3.0, 6.0])
SAMPLES = torch.tensor([2, 0, 2, 2])


def test_shares_are_of_one_mean_over_all_values():
    sums = SampleSums.of(VALUES, SAMPLES, 4)
    assert sums.sums.tolist() == [2, 0, 10, 0] and sums.counts.tolist() == [1, 0, 3, 0]
    assert sums.per_sample().tolist() == [2, 0, 10, 0]
    assert sums.mean() == pytest.approx(VALUES.mean().item())
    assert sums.share() == 0.5


def test_parts_of_unequal_weight_join_to_the_whole():
    first = SampleSums.of(VALUES[1:2], SAMPLES[1:2], 2)
    second = SampleSums.of(VALUES[[0, 2, 3]], torch.tensor([0, 0, 0]), 2)
    joined = SampleSums.join([first, second])
    whole = SampleSums.of(VALUES, SAMPLES, 4)
    assert joined.per_sample().equal(whole.per_sample())
    assert (first.mean() + second.mean()) / 2 != pytest.approx(joined.mean())


def test_nothing_is_zero():
    sums = SampleSums.of(torch.zeros(0), torch.zeros(0, dtype=torch.long), 3)
    assert sums.per_sample().tolist() == [0, 0, 0]
    assert sums.mean() == sums.share() == 0
