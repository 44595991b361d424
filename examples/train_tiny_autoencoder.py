"""Train the autoencoder of depth pictures that the preset `tiny` ships with (lerobot_gem/models/tiny_autoencoder/).

    python examples/train_tiny_autoencoder.py --data data/object data/spatial --output_dir outputs/tiny_autoencoder

takes the depth of all cameras of these datasets, paints it in both colormaps, and prints how well pictures of every tenth
episode, which is not trained on, are reconstructed. A policy takes the result with --policy.depth.autoencoder.

With --rgb it learns the cameras' own pictures too, for runs that compare --policy.depth.target=rgb with depth: the packaged one
hardly knows them, and both must be painted in the same latents.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderDC
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor

from lerobot_gem.models.presets import get_preset
from lerobot_gem.processing.depth_cameras import pair_depth
from lerobot_gem.processing.depth_target import depth_target, rgb_target
from lerobot_gem.storage.frames import open_depth_dataset, read_frames
from lerobot_gem.storage.opening import DatasetOptions

TINY = get_preset("tiny")
COLORMAPS = ("spectral", "inferno")
RGB = "rgb"
HELD_OUT = 10  # every tenth episode
# Standard deviation of noise on latents in training, as a share of theirs: what the generator paints is never exact.
LATENT_NOISE = 0.1


class Views(NamedTuple):
    """What cameras saw.

    Attributes:
        depth: (N, 1, H, W) in metres.
        rgb: (N, 3, H, W) in [0, 1].
    """

    depth: Tensor
    rgb: Tensor

    def at(self, chosen: Tensor) -> "Views":
        """Those at these positions."""
        return Views(self.depth[chosen], self.rgb[chosen])


def read_views(roots: Sequence[Path]) -> tuple[Views, Views]:
    """Views to train on, and those to measure on."""
    views: tuple[list[Views], list[Views]] = ([], [])
    for root in roots:
        dataset = open_depth_dataset(DatasetOptions(f"local/{root.name}", root))
        pairs = pair_depth(dataset.meta.features, None)
        for frame in read_frames(dataset, range(len(dataset)), batch_size=1):
            is_held_out = frame["episode_index"].item() % HELD_OUT == 0
            views[is_held_out].extend(Views(frame[depth], frame[rgb]) for rgb, depth in pairs.items())
    trained_on, held_out = (Views(*map(torch.cat, zip(*part, strict=True))) for part in views)
    return trained_on, held_out


def paint(views: Views, target: str) -> Tensor:
    """Pictures (N, 3, h, w) in [-1, 1], in a colormap or as the camera saw it, of the views whose depth is not empty."""
    colormap = COLORMAPS[0] if target == RGB else target
    pictures, has_depth = depth_target(views.depth, colormap=colormap, max_side=TINY.max_depth_side)
    if target == RGB:
        pictures = rgb_target(views.rgb, (pictures.shape[-2], pictures.shape[-1]))
    return pictures[has_depth]


def train(
    autoencoder: Any,
    views: Views,
    targets: Sequence[str],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Reconstruct pictures, equal parts of each batch of each and half of them mirrored, from noisy latents."""
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=learning_rate, weight_decay=0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, steps // 50, steps)
    for step in range(1, steps + 1):
        parts = torch.randint(len(views.depth), (batch_size,)).tensor_split(len(targets))
        pictures = torch.cat(
            [paint(views.at(part), target) for part, target in zip(parts, targets, strict=True)]
        )
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
    parser.add_argument("--rgb", action="store_true", help="learn the cameras' own pictures too")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    trained_on, held_out = read_views(options.data)
    targets = (*COLORMAPS, RGB) if options.rgb else COLORMAPS
    autoencoder: Any = AutoencoderDC.from_config(TINY.depth.autoencoder)
    train(
        autoencoder,
        trained_on,
        targets,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
    )
    pictures = {name: paint(held_out, name) for name in targets}
    autoencoder.register_to_config(
        scaling_factor=scaling_factor(autoencoder, torch.cat(list(pictures.values())))
    )
    autoencoder.half().save_pretrained(options.output_dir)
    saved = AutoencoderDC.from_pretrained(options.output_dir, torch_dtype=torch.float32)
    print(
        f"{options.output_dir}: trained on {len(trained_on.depth)} depth maps, scaling factor {saved.config.scaling_factor:.4f}"
    )
    for name, measured in pictures.items():
        print(f"{name}: PSNR of {len(measured)} held-out pictures {psnr(saved, measured):.1f} dB")


if __name__ == "__main__":
    main()
