"""A configuration can't make a model larger than the weights that lie beside it."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode

from lerobot_gem.checkpoints.files import StoredTensor

# A model has tensors that are not stored (positions, a language head that is tied to the embeddings), and a policy that is
# loaded to act leaves stored ones out.
_MOST_TIMES_LARGER = 3
_MOST_MORE_NUMBERS = 2**24
_MOST_MORE_TENSORS = 2**12
_CONSTRUCTORS = (
    torch.empty,
    torch.empty_strided,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.eye,
    torch.arange,
    torch.linspace,
    torch.rand,
    torch.randn,
)


class SizeLimit(TorchFunctionMode):
    """Within it, a model that needs far more than some stored weights is not built: it ends with a ValueError, soon.

    It counts the numbers and tensors that torch is asked to make room for, before there is any room.

    Args:
        weights: That the model will be loaded with.
        config: What gives the model's sizes, for the error.
    """

    def __init__(self, weights: Mapping[str, StoredTensor], config: str) -> None:
        super().__init__()
        self._config = config
        self._stored = sum(math.prod(stored.shape) for stored in weights.values())
        self._numbers: float = self._stored * _MOST_TIMES_LARGER + _MOST_MORE_NUMBERS
        self._tensors = len(weights) * _MOST_TIMES_LARGER + _MOST_MORE_TENSORS

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONSTRUCTORS:
            self._count(_numel(func, args, kwargs))
        return func(*args, **kwargs)

    def _count(self, numbers: float) -> None:
        self._numbers -= numbers
        self._tensors -= 1
        if self._numbers < 0 or self._tensors < 0:
            raise ValueError(
                f"{self._config} asks for a model that is far larger than the weights beside it, which hold {self._stored} numbers. "
                "Take both files from the same checkpoint, from somebody whom you trust."
            )


def _numel(func: Any, args: Any, kwargs: Any) -> float:
    try:
        return func(*args, **{**kwargs, "device": "meta"}).numel()
    except (RuntimeError, TypeError) as error:
        if "overflow" not in str(error).lower():
            raise
        return math.inf
