"""A configuration that asks for more than its weights hold ends before any room is made."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lerobot_gem.checkpoints.files import StoredTensor
from lerobot_gem.checkpoints.size_limit import SizeLimit

WEIGHTS = {"weight": StoredTensor(Path("file"), "weight", (8, 8), torch.float32)}


def test_what_fits_is_built() -> None:
    with SizeLimit(WEIGHTS, "config.json"):
        assert nn.Linear(8, 8).weight.shape == (8, 8)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Embedding(2_000_000_000, 8),
        lambda: torch.zeros(2**62),
        lambda: nn.Linear(2**70, 8),
        lambda: nn.ModuleList(nn.Linear(1, 1) for _ in range(10**9)),
        lambda: nn.ModuleList(nn.Linear(0, 0, bias=False) for _ in range(10**9)),
        lambda: torch.arange(10**12),
    ],
    ids=["rows", "numbers", "more than 64 bits", "layers", "empty layers", "positions"],
)
def test_what_is_far_too_large_is_refused_at_once(build) -> None:
    with (
        SizeLimit(WEIGHTS, "config.json"),
        pytest.raises(
            ValueError, match=r"^config.json asks for a model that is far larger .* hold 64 numbers"
        ),
    ):
        build()
