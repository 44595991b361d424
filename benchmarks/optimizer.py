"""What an update of tiny's weights costs: torch's Muon, which takes one matrix after the other, and this package's.

    OMP_NUM_THREADS=1 python benchmarks/optimizer.py

prints CPU milliseconds of an update of all matrices of a `tiny` backbone and action expert, both optimisers interleaved in one
run, and the largest difference between their weights.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from transformers import Qwen3VLConfig

from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.presets import get_preset
from lerobot_gem.training.muon import MATRICES, BatchedMuon
from lerobot_gem.training.trainable import parameter_groups


def matrices() -> list[Tensor]:
    """The weights (rows, columns) that Muon updates in tiny's backbone and action expert."""
    preset = get_preset("tiny")
    backbone = GemBackbone(Qwen3VLConfig(**preset.backbone))
    expert = ActionExpert(
        preset.expert, conditioning_dim=backbone.hidden_size, action_dim=7, state_dim=None, chunk_size=8
    )
    groups = parameter_groups(expert, backbone=backbone, lr=1.0, lr_backbone=None, muon=True)
    return [weight.detach() for group in groups if group[MATRICES] for weight in group["params"]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=50)
    options = arguments.parse_args()
    torch.manual_seed(0)
    weights = matrices()
    kinds = {"torch.optim.Muon": torch.optim.Muon, "BatchedMuon": BatchedMuon}
    copies = {name: [nn.Parameter(weight.clone()) for weight in weights] for name in kinds}
    optimizers = {
        name: kind(copies[name], lr=2e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        for name, kind in kinds.items()
    }
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.steps):
        gradients = [torch.randn_like(weight) for weight in weights]
        for name, optimizer in optimizers.items():
            for parameter, gradient in zip(copies[name], gradients, strict=True):
                parameter.grad = gradient.clone()
            start = time.process_time()
            optimizer.step()
            spent[name].append(time.process_time() - start)
    for name, seconds in spent.items():
        print(f"{name}: {1000 * statistics.median(seconds):.1f} CPU-ms an update of {len(weights)} matrices")
    first, second = copies.values()
    difference = max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))
    print(f"largest difference between weights after {options.steps} updates: {difference:.1e}")


if __name__ == "__main__":
    main()
