"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) as an optimiser of LeRobot.

What is learned from random weights is learned from a third of the samples that AdamW needs (docs/demo.md). torch's own Muon
takes matrices alone, and LeRobot's training loop one optimiser alone: this one hands each group to torch's Muon or AdamW.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.optim.optimizers import OptimizerConfig, OptimizerParams

MATRICES = "matrices"  # a parameter group's flag


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the parameter groups whose `matrices` is true, AdamW for the others.

    Args:
        params: Groups with `params`, `matrices` and, if not the default, `lr`.
        lr: Learning rate of both: Muon's updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982).
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: Of both.
        momentum: Muon's.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        groups = list(params)
        matrices = [group for group in groups if group[MATRICES]]
        others = [group for group in groups if not group[MATRICES]]
        self._optimizers: dict[bool, torch.optim.Optimizer] = {}
        if matrices:
            self._optimizers[True] = torch.optim.Muon(
                matrices,
                lr=lr,
                weight_decay=weight_decay,
                momentum=momentum,
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
class MuonConfig(OptimizerConfig):
    """Muon for weight matrices, AdamW for the rest.

    Attributes:
        lr: Learning rate.
        betas: AdamW's betas.
        eps: AdamW's epsilon.
        weight_decay: Weight decay.
        grad_clip_norm: Largest norm of the gradient.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0

    def build(self, params: OptimizerParams) -> torch.optim.Optimizer:
        return MuonWithAdamW(
            params, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )
