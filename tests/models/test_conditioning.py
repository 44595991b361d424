"""Conditioning of a batch in which observations are repeated."""

import torch

from lerobot_gem.models.conditioning import Conditioning, KeyValue


def test_each_observation_stands_several_times_in_a_row():
    key, value = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])[:, None, None]
    twice = Conditioning((KeyValue(key, value),), mask).repeat(2)
    for row, source in enumerate((0, 0, 1, 1)):
        assert twice.blocks[0].key[row].equal(key[source])
        assert twice.blocks[0].value[row].equal(value[source])
        assert twice.mask[row].equal(mask[source])


def test_once_is_the_same_object():
    conditioning = Conditioning((KeyValue(torch.zeros(1), torch.zeros(1)),), None)
    assert conditioning.repeat(1) is conditioning
    assert conditioning.repeat(3).mask is None
