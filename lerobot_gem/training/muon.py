"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) as an optimiser of LeRobot.

What is learned from random weights is learned from a third of the samples that AdamW needs (results/demo/README.md). torch's own Muon
takes matrices alone, and LeRobot's training loop one optimiser alone: this one hands each group to Muon or torch's AdamW.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.optim.optimizers import AdamWConfig, OptimizerConfig, OptimizerParams
from torch import Tensor

MATRICES = "matrices"  # a parameter group's flag

_MOMENTUM = 0.95  # Muon's


class BatchedMuon(torch.optim.Muon):
    """torch's Muon with Nesterov's momentum, which updates matrices of one shape together.

    torch's takes one matrix after the other, which is most of the time where there are many small ones
    (benchmarks/optimizer.py). Options, state and results are its own, but for the last bits of bfloat16.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if not params:
                continue
            grads: list[Tensor] = [param.grad for param in params]
            momentum, lr = group["momentum"], group["lr"]
            for param in params:
                if "momentum_buffer" not in self.state[param]:
                    self.state[param]["momentum_buffer"] = torch.zeros_like(param)
            buffers: list[Tensor] = [self.state[param]["momentum_buffer"] for param in params]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            directions = torch._foreach_lerp(grads, buffers, momentum)
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
            by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for place, param in enumerate(params):
                by_shape[tuple(param.shape)].append(place)
            for shape, places in by_shape.items():
                updates = orthogonalize(
                    torch.stack([directions[place] for place in places]),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                # "match_rms_adamw" (Liu et al. 2025, arXiv 2502.16982, section 2.2)
                scale = 0.2 * max(shape) ** 0.5
                torch._foreach_add_([params[place] for place in places], list(updates), alpha=-lr * scale)


def orthogonalize(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Nearly orthogonal matrices by Newton and Schulz's iteration, in bfloat16 as torch's (Jordan et al. 2024).

    Args:
        matrices: (N, rows, columns).
        coefficients: Of the quintic polynomial.
        steps: How often it is applied.
        eps: Least norm that a matrix is divided by.

    Returns:
        (N, rows, columns), of the dtype of `matrices`.
    """
    a, b, c = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the parameter groups whose `matrices` is true, AdamW for the others.

    Args:
        params: Groups with `params`, `matrices` and, if not the default, `lr`.
        lr: Learning rate of both: Muon's updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982).
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: Of both.

    Raises:
        ValueError: Groups don't say whether they are matrices.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        groups = list(params)
        if not all(isinstance(group, dict) and MATRICES in group for group in groups):
            raise ValueError(
                "--optimizer.type=gem_muon was given weights that don't say whether they are matrices, as Muon takes them: expected the "
                "policy's own groups (--policy.optimizer_name=muon, without --optimizer.type and --use_policy_training_preset=false). A run that "
                "began with muon is resumed with it."
            )
        matrices = [group for group in groups if group[MATRICES]]
        others = [group for group in groups if not group[MATRICES]]
        self._optimizers: dict[bool, torch.optim.Optimizer] = {}
        if matrices:
            self._optimizers[True] = BatchedMuon(
                matrices,
                lr=lr,
                weight_decay=weight_decay,
                momentum=_MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        if others:
            self._optimizers[False] = torch.optim.AdamW(
                others, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay
            )
        super().__init__(
            [group for part in self._optimizers.values() for group in part.param_groups], defaults={}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for matrices, optimizer in self._optimizers.items():
            # Loading a checkpoint replaces groups and state, so that they can't be linked once for all.
            optimizer.param_groups = [group for group in self.param_groups if group[MATRICES] == matrices]
            optimizer.state = self.state
            optimizer.step()
        return loss


@OptimizerConfig.register_subclass("gem_muon")
@dataclass
class MuonConfig(AdamWConfig):
    """Muon for weight matrices, AdamW for the rest.

    The fields are those of LeRobot's AdamW; two have another default.
    """

    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0

    def build(self, params: OptimizerParams) -> torch.optim.Optimizer:
        return MuonWithAdamW(
            params, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )
