"""Losses summed over the samples of a batch, not yet divided: so the parts of a batch add up to the whole.

A mean over answer tokens or images weighs samples by how many they have. The mean of the parts' means would not be the
mean of the whole; the sum of their sums, divided by the sum of their counts, is. Parts are micro-batches, and the batches of
processes that train together.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, distributed

from lerobot_gem.training.processes import process_count


class SampleSums(NamedTuple):
    """Sums of the values of each sample.

    Attributes:
        sums: (B,).
        counts: (B,), how many values each sums.
        total: (), how many values the mean is over, for each of the processes that train together; None where they are those of
            this batch.
    """

    sums: Tensor
    counts: Tensor
    total: Tensor | None = None

    @classmethod
    def of(cls, values: Tensor, samples: Tensor, batch_size: int) -> Self:
        """Sums of values (M,) whose samples are `samples` (M,)."""
        sums = values.new_zeros(batch_size).index_add(0, samples, values)
        return cls(sums, torch.bincount(samples, minlength=batch_size))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Those of a batch from those of its parts."""
        return cls(torch.cat([part.sums for part in parts]), torch.cat([part.counts for part in parts]))

    def per_sample(self) -> Tensor:
        """(B,) shares of each sample in the mean of all values, such that their mean is that mean.

        Samples with more values weigh more, as in one mean over all; zero where a sample has none. With several processes, it is
        the mean over their means that is the mean of all values: gradients and logs are averaged over them.
        """
        total = self.counts.sum().clamp(min=1) if self.total is None else self.total
        return self.sums * (len(self.sums) / total)

    def mean(self) -> float:
        """The mean of all values, for the logs; 0 of none. With several processes, this one's share of it (`per_sample`)."""
        return self.per_sample().mean().item()

    def share(self) -> float:
        """The share of the samples that have values."""
        return int((self.counts > 0).sum()) / len(self.counts)


def over_processes(sums: Mapping[str, SampleSums]) -> dict[str, SampleSums]:
    """The same sums, whose means are over the values of all processes that train together.

    Every process must call it, with the same keys; they wait for each other.
    """
    processes = process_count()
    if processes == 1:
        return dict(sums)
    totals = torch.stack([values.counts.sum() for values in sums.values()])
    distributed.all_reduce(totals)
    totals = totals.clamp(min=1) / processes
    return {
        name: values._replace(total=total) for (name, values), total in zip(sums.items(), totals, strict=True)
    }
