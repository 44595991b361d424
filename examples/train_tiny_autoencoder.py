"""Train the autoencoder of depth pictures that the preset `tiny` ships with (lerobot_gem/models/tiny_autoencoder/).

    python examples/train_tiny_autoencoder.py --data data/object data/spatial --output_dir outputs/tiny_autoencoder

takes the depth of all cameras of these datasets, paints it in both colormaps, and prints how well pictures of every tenth
episode, which is not trained on, are reconstructed. A policy takes the result with --policy.depth.autoencoder.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderDC
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor

from lerobot_gem.models.presets import get_preset
from lerobot_gem.processing.depth_target import depth_target
from lerobot_gem.storage.frames import open_depth_dataset, read_frames
from lerobot_gem.storage.opening import DatasetOptions

TINY = get_preset("tiny")
COLORMAPS = ("spectral", "inferno")
HELD_OUT = 10  # every tenth episode
# Standard deviation of noise on latents in training, as a share of theirs: what the generator paints is never exact.
LATENT_NOISE = 0.1


def read_depth(root: Path) -> tuple[Tensor, Tensor]:
    """Depth maps (N, 1, H, W) in metres to train on, and those to measure on."""
    dataset = open_depth_dataset(DatasetOptions(f"local/{root.name}", root))
    depth: tuple[list[Tensor], list[Tensor]] = ([], [])
    for frame in read_frames(dataset, range(len(dataset)), batch_size=1):
        is_held_out = frame["episode_index"].item() % HELD_OUT == 0
        depth[is_held_out].extend(frame[key] for key in dataset.meta.depth_keys)
    return torch.cat(depth[False]), torch.cat(depth[True])


def paint(depth: Tensor, colormap: str) -> Tensor:
    """Pictures (N, 3, h, w) in [-1, 1] of the depth maps (N, 1, H, W) that are not empty."""
    pictures, has_depth = depth_target(depth, colormap=colormap, max_side=TINY.max_depth_side)
    return pictures[has_depth]


def train(autoencoder: Any, depth: Tensor, *, steps: int, batch_size: int, learning_rate: float) -> None:
    """Reconstruct pictures, half of each batch in each colormap and half of them mirrored, from noisy latents."""
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=learning_rate, weight_decay=0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, steps // 50, steps)
    for step in range(1, steps + 1):
        halves = depth[torch.randint(len(depth), (batch_size,))].chunk(2)
        pictures = torch.cat([paint(half, name) for half, name in zip(halves, COLORMAPS, strict=True)])
        pictures[::2] = pictures[::2].flip(-1)
        latents = autoencoder.encode(pictures).latent
        noise = LATENT_NOISE * latents.detach().square().mean().sqrt() * torch.randn_like(latents)
        loss = F.l1_loss(autoencoder.decode(latents + noise).sample, pictures)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0:
            print(f"step {step}: mean absolute error {loss.item():.4f} (pictures in [-1, 1])", flush=True)


@torch.no_grad()
def psnr(autoencoder: Any, pictures: Tensor) -> float:
    """Peak signal to noise ratio of reconstructed pictures, in dB."""
    errors = [(autoencoder(part).sample - part).square().flatten(1).mean(1) for part in pictures.split(16)]
    return 10 * math.log10(4 / torch.cat(errors).mean().item())


@torch.no_grad()
def scaling_factor(autoencoder: Any, pictures: Tensor) -> float:
    """What makes the root mean square of latents 1, as flow matching from standard normal noise expects."""
    latents = torch.cat([autoencoder.encode(part).latent for part in pictures.split(16)])
    return 1 / latents.square().mean().sqrt().item()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of datasets with depth")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    trained_on, held_out = (torch.cat(parts) for parts in zip(*map(read_depth, options.data), strict=True))
    autoencoder: Any = AutoencoderDC.from_config(TINY.depth.autoencoder)
    train(
        autoencoder,
        trained_on,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
    )
    pictures = {name: paint(held_out, name) for name in COLORMAPS}
    autoencoder.register_to_config(
        scaling_factor=scaling_factor(autoencoder, torch.cat(list(pictures.values())))
    )
    autoencoder.half().save_pretrained(options.output_dir)
    saved = AutoencoderDC.from_pretrained(options.output_dir, torch_dtype=torch.float32)
    print(
        f"{options.output_dir}: trained on {len(trained_on)} depth maps, scaling factor {saved.config.scaling_factor:.4f}"
    )
    for name, measured in pictures.items():
        print(f"{name}: PSNR of {len(measured)} held-out pictures {psnr(saved, measured):.1f} dB")


if __name__ == "__main__":
    main()
