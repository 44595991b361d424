"""Losses summed over the samples of a batch, not yet divided: so the parts of a batch add up to the whole.

A mean over answer tokens or images weighs samples by how many they have. The mean of the parts' means would not be the
mean of the whole; the sum of their sums, divided by the sum of their counts, is.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class SampleSums(NamedTuple):
    """Sums of the values of each sample.

    Attributes:
        sums: (B,).
        counts: (B,), how many values each sums.
    """

    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, samples: Tensor, batch_size: int) -> Self:
        """Sums of values (M,) whose samples are `samples` (M,)."""
        sums = values.new_zeros(batch_size).index_add(0, samples, values)
        return cls(sums, torch.bincount(samples, minlength=batch_size))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Those of a batch from those of its parts."""
        return cls(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def per_sample(self) -> Tensor:
        """(B,) shares of each sample in the mean of all values, such that their mean is that mean.

        Samples with more values weigh more, as in one mean over all; zero where a sample has none.
        """
        return self.sums * (len(self.sums) / self.counts.sum().clamp(min=1))

    def mean(self) -> float:
        """The mean of all values, for the logs; 0 of none."""
        return self.per_sample().mean().item()

    def share(self) -> float:
        """The share of the samples that have values."""
        return int((self.counts > 0).sum()) / len(self.counts)
