"""Stage 0: an autoencoder of depth pictures for the presets that have no released one (`tiny`).

The released DC-AE was trained on photographs and is used as it is. A small one is learned here from the depth of a
LeRobotDataset, and written in diffusers' own format, for `--policy.depth.autoencoder`.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderDC
from diffusers.optimization import get_cosine_schedule_with_warmup
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from lerobot_gem.models.presets import get_preset
from lerobot_gem.processing.depth_target import Colormap, depth_target
from lerobot_gem.storage.frames import open_depth_dataset, read_frames
from lerobot_gem.storage.opening import DatasetOptions

logger = logging.getLogger(__name__)

# Every tenth episode is kept for measuring.
_HELD_OUT = 10
_WARMUP_STEPS = 20
# Standard deviation of noise on latents in training, as a share of theirs: what the generator paints is never exact.
_LATENT_NOISE = 0.1


@dataclass
class AutoencoderTrainingConfig:
    """What to train an autoencoder on, and how long.

    Attributes:
        dataset: A dataset with depth cameras, all of which are used.
        output_dir: Folder to write; must not exist or be empty.
        preset: Whose autoencoder to train.
        colormap: How depth becomes a picture: "spectral" or "inferno".
        max_side: Longest side of the picture, in pixels. None takes the preset's.
        steps: Updates.
        batch_size: Pictures of an update.
        learning_rate: Peak; warms up, then falls along a cosine.
        eval_frames: Frames of held-out episodes that the reconstruction is measured on.
        num_workers: Processes that read frames.
        device: Where to train.
        log_freq: Updates between two lines of the log.
        seed: Of weights, order and noise.
    """

    dataset: DatasetOptions
    output_dir: Path
    preset: str = "tiny"
    colormap: Colormap = "spectral"
    max_side: int | None = None
    steps: int = 600
    batch_size: int = 8
    learning_rate: float = 2e-3
    eval_frames: int = 64
    num_workers: int = 0
    device: str = "cpu"
    log_freq: int = 50
    seed: int = 1000


@dataclass(frozen=True)
class AutoencoderReport:
    """How well pictures of held-out frames are reconstructed.

    Attributes:
        psnr_before: Peak signal to noise ratio with random weights, in dB.
        psnr_after: The same after training.
        scaling_factor: What makes the latents' root mean square 1; it is in the saved configuration.
        pictures: How many were measured.
    """

    psnr_before: float
    psnr_after: float
    scaling_factor: float
    pictures: int


def train_autoencoder(config: AutoencoderTrainingConfig) -> AutoencoderReport:
    """Train, measure and save.

    Raises:
        FileExistsError: `output_dir` is not empty.
        FileNotFoundError: No dataset at `dataset.root`.
        ValueError: The dataset has no depth camera, no depth, or a single episode; preset or colormap is unknown; or
            `steps`, `batch_size`, `eval_frames` or `log_freq` is below 1.
    """
    for name in ("steps", "batch_size", "eval_frames", "log_freq"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}: expected at least 1.")
    if config.output_dir.exists() and any(config.output_dir.iterdir()):
        raise FileExistsError(
            f"output_dir={config.output_dir} is not empty: take another folder, or delete it."
        )
    dataset = open_depth_dataset(config.dataset)
    learned, held_out = _split(dataset, config.eval_frames)
    torch.manual_seed(config.seed)
    autoencoder: Any = AutoencoderDC.from_config(get_preset(config.preset).depth.autoencoder).to(
        config.device
    )
    test = list(_pictures(config, dataset, held_out))
    if not test:
        raise _no_depth(dataset, held_out)
    before = _psnr(autoencoder, test)

    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=config.learning_rate, weight_decay=0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, _WARMUP_STEPS, config.steps)
    for step, pictures in zip(range(1, config.steps + 1), _endless(config, dataset, learned), strict=False):
        latents = autoencoder.encode(pictures).latent
        noise = _LATENT_NOISE * latents.detach().square().mean().sqrt() * torch.randn_like(latents)
        loss = F.l1_loss(autoencoder.decode(latents + noise).sample, pictures)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % config.log_freq == 0:
            logger.info(f"step {step}: mean absolute error {loss.item():.4f} (pictures in [-1, 1])")

    autoencoder.register_to_config(scaling_factor=_scaling_factor(autoencoder, test))
    autoencoder.save_pretrained(config.output_dir)
    return AutoencoderReport(
        before,
        _psnr(autoencoder, test),
        autoencoder.config.scaling_factor,
        sum(len(pictures) for pictures in test),
    )


def _split(dataset: LeRobotDataset, eval_frames: int) -> tuple[list[int], list[int]]:
    """Frames to learn from, and at most `eval_frames`, evenly spread, of the episodes that are held out.

    Raises:
        ValueError: A single episode.
    """
    if dataset.num_episodes < 2:
        raise ValueError(
            f"{dataset.repo_id!r} has {dataset.num_episodes} episode: expected at least 2, one of them to measure on."
        )
    _, episodes = np.unique(dataset.hf_dataset.data.column("episode_index"), return_inverse=True)
    # The first episode of each ten, so that even two are split.
    is_held_out = episodes % _HELD_OUT == 0
    held_out = np.flatnonzero(is_held_out)
    spread = held_out[np.linspace(0, len(held_out) - 1, min(eval_frames, len(held_out))).astype(int)]
    return np.flatnonzero(~is_held_out).tolist(), spread.tolist()


def _pictures(
    config: AutoencoderTrainingConfig,
    dataset: LeRobotDataset,
    frames: Sequence[int],
    *,
    shuffle: bool = False,
) -> Iterator[Tensor]:
    """Depth pictures (N, 3, h, w) in [-1, 1], of one depth camera after another; none of frames without depth."""
    max_side = config.max_side or get_preset(config.preset).max_depth_side
    for batch in read_frames(
        dataset, frames, batch_size=config.batch_size, shuffle=shuffle, num_workers=config.num_workers
    ):
        for key in dataset.meta.depth_keys:
            depth = batch[key].to(config.device)
            targets = depth_target(depth, colormap=config.colormap, max_side=max_side)
            if targets.has_depth.any():
                yield targets.pictures[targets.has_depth]


def _endless(
    config: AutoencoderTrainingConfig, dataset: LeRobotDataset, frames: Sequence[int]
) -> Iterator[Tensor]:
    """Training batches, shuffled, pass after pass.

    Raises:
        ValueError: No frame has depth.
    """
    while True:
        found = False
        for pictures in _pictures(config, dataset, frames, shuffle=True):
            found = True
            yield pictures
        if not found:
            raise _no_depth(dataset, frames)


def _no_depth(dataset: LeRobotDataset, frames: Sequence[int]) -> ValueError:
    return ValueError(
        f"No depth in {len(frames)} frames of {dataset.repo_id!r}: expected distances of 11 mm to 9.99 m. Check "
        "info.depth_unit of its depth cameras in meta/info.json."
    )


@torch.no_grad()
def _psnr(autoencoder: Any, batches: Sequence[Tensor]) -> float:
    """Peak signal to noise ratio of reconstructions, in dB, of pictures in [-1, 1]."""
    squared = [
        (autoencoder(pictures).sample - pictures).square().flatten(1).mean(dim=1) for pictures in batches
    ]
    return 10 * math.log10(4 / torch.cat(squared).mean().item())


@torch.no_grad()
def _scaling_factor(autoencoder: Any, batches: Sequence[Tensor]) -> float:
    """What makes the root mean square of latents 1, as flow matching from standard normal noise expects."""
    power = [autoencoder.encode(pictures).latent.square().flatten(1).mean(dim=1) for pictures in batches]
    return 1 / torch.cat(power).mean().sqrt().item()
