"""Numbers that are not finite, with their frame."""

import pytest
import torch

from lerobot_gem.processing.finite import check_finite, first_broken_parameter, is_finite


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_is_enough(value: float):
    values = torch.zeros(3, 4)
    assert is_finite(values)
    values[1, 2] = value
    assert not is_finite(values)


def test_a_sum_that_overflows_is_finite_all_the_same():
    assert is_finite(torch.full((4,), 3e38))


def test_the_frame_is_named_as_far_as_it_is_known():
    values = torch.zeros(3, 4)
    values[1, 2] = torch.nan
    frames = {"index": torch.tensor([7, 8, 9]), "episode_index": torch.tensor([0, 1, 1])}
    with pytest.raises(ValueError, match=r"key\[2\] is nan in frame 8 \(episode 1\): expected .* Mend it"):
        check_finite("key", values, frames, "Mend it.")
    with pytest.raises(ValueError, match=r"key\[2\] is nan in observation 1 of the batch: expected"):
        check_finite("key", values, {}, "Mend it.")


def test_broken_weights_are_named():
    model = torch.nn.Linear(2, 2)
    assert first_broken_parameter(model) is None
    model.bias.data[1] = torch.nan
    assert first_broken_parameter(model) == "bias"
