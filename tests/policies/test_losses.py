"""Sums of losses by sample."""

import pytest
import torch

from lerobot_gem.policies import losses
from lerobot_gem.policies.losses import SampleSums, over_processes

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


def test_of_one_process_nothing_changes():
    sums = {"depth": SampleSums.of(VALUES, SAMPLES, 4)}
    assert over_processes(sums) == sums


def test_means_of_processes_average_to_the_mean_of_all_values(monkeypatch):
    """This process has three values of one, the other one of five, and none of the other loss."""
    monkeypatch.setattr(losses, "process_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda totals: totals.add_(torch.tensor([1, 0])))
    some, none = torch.ones(3), torch.zeros(0)
    sums = over_processes(
        {
            "depth": SampleSums.of(some, torch.tensor([0, 0, 1]), 2),
            "language": SampleSums.of(none, torch.zeros(0, dtype=torch.long), 2),
        }
    )
    of_the_other = 5 / (4 / 2)
    assert (sums["depth"].mean() + of_the_other) / 2 == pytest.approx((3 * 1 + 5) / 4)
    assert sums["language"].mean() == 0
