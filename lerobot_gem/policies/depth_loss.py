"""The depth loss of a batch: which depth map belongs to which vision span."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_options import DepthSupervision
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.processing.depth_cameras import metres
from lerobot_gem.processing.depth_target import depth_target, has_depth, rgb_target

DEPTH, WITHOUT_DEPTH = "depth", "images_without_depth"
DRAWN = "depth.drawn"  # in a batch: (B, C), see `draw_images`


class DepthLosses(NamedTuple):
    """Losses of the images that have depth.

    Attributes:
        per_image: (M,).
        samples: (M,), the sample that each image belongs to.
        skipped: (K,), samples of the images whose depth map has no valid pixel.
    """

    per_image: Tensor
    samples: Tensor
    skipped: Tensor

    def sums(self, batch_size: int) -> dict[str, SampleSums]:
        """Those of the losses, and of ones for images without depth, by sample."""
        ones = torch.ones_like(self.skipped, dtype=torch.float32)
        return {
            DEPTH: SampleSums.of(self.per_image, self.samples, batch_size),
            WITHOUT_DEPTH: SampleSums.of(ones, self.skipped, batch_size),
        }


def depth_logs(sums: Mapping[str, SampleSums]) -> dict[str, float]:
    """The same keys for every batch, as LeRobot's reduction over processes needs."""
    return {
        "depth_loss": sums[DEPTH].mean(),
        "frames_with_depth": sums[DEPTH].share(),
        "images_without_depth": sums[WITHOUT_DEPTH].sums.sum().item(),
    }


def draw_images(
    share: float,
    shown: Tensor,
    batch: Mapping[str, Tensor],
    cameras: Sequence[str],
    supervision: DepthSupervision,
) -> Tensor:
    """Draw the images whose depth is learned in a step: a share of those that have depth, rounded up.

    Each is as likely as another, so that the mean of their losses is expected to be the mean of all. Images without depth stay,
    to be counted.

    Args:
        share: Above 0, at most 1.
        shown: (N, 2), sample and camera of each image of the prompts.
        batch: Holds depth and RGB images, as for `depth_losses`.
        cameras: Keys of the RGB cameras.
        supervision: Which depth is learned.

    Returns:
        (B, C) bool, True at samples and cameras that were drawn.

    Raises:
        ValueError: As `depth_losses`.
    """
    has = torch.zeros(len(batch[cameras[0]]), len(cameras), dtype=torch.bool, device=shown.device)
    for position, camera in enumerate(cameras):
        if camera in supervision.cameras:
            height, width = batch[camera].shape[-2:]
            depth = metres(batch, supervision.cameras[camera], supervision.unit)
            has[:, position] = has_depth(depth, (height, width))
    images = shown[has[shown[:, 0], shown[:, 1]]]
    kept = images[torch.randperm(len(images), device=images.device)[: math.ceil(share * len(images))]]
    drawn = ~has
    drawn[kept[:, 0], kept[:, 1]] = True
    return drawn


def depth_losses(
    generator: DepthGenerator,
    spans: Tensor,
    mask: Tensor,
    shown: Sequence[tuple[int, int]],
    batch: Mapping[str, Tensor],
    cameras: Sequence[str],
    supervision: DepthSupervision,
    drawn: Tensor | None = None,
) -> DepthLosses:
    """Losses of the generated depth of every image whose camera has a depth camera.

    With `supervision.target` "rgb" the images are painted instead of their depth; which images they are still depends on depth
    alone.

    Args:
        generator: Predicts the depth.
        spans: (N, S, D), final states of the images' tokens.
        mask: (N, S), True at tokens.
        shown: Sample and camera of each of the N images.
        batch: Holds depth (B, 1, H, W) in `supervision.unit` under each paired depth key, and the cameras' RGB images.
        cameras: Keys of the RGB cameras.
        supervision: Which depth is learned, and how.
        drawn: (B, C) bool, the images whose depth is learned in this step (`draw_images`); None for all.

    Raises:
        ValueError: A depth key is missing, or its values can't be in `supervision.unit`.
    """
    by_camera = defaultdict(list)
    is_drawn = None if drawn is None else drawn.tolist()
    for image, (sample, position) in enumerate(shown):
        if cameras[position] in supervision.cameras and (is_drawn is None or is_drawn[sample][position]):
            by_camera[cameras[position]].append((image, sample))
    # Pictures of one size go through the generator together, whichever camera they are from.
    by_size: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    skipped = [mask.new_zeros(0, dtype=torch.long)]
    for camera, entries in by_camera.items():
        images, samples = torch.tensor(entries, device=spans.device).unbind(dim=1)
        depth = metres(batch, supervision.cameras[camera], supervision.unit)[samples]
        height, width = batch[camera].shape[-2:]
        targets = depth_target(
            depth,
            colormap=supervision.colormap,
            max_side=supervision.max_side,
            rgb_size=(height, width),
        )
        pictures = targets.pictures
        if supervision.target == "rgb":
            pictures = rgb_target(batch[camera][samples], (pictures.shape[-2], pictures.shape[-1]))
        keep = targets.has_depth
        skipped.append(samples[~keep])
        by_size[pictures.shape[1:]].append((images[keep], samples[keep], pictures[keep]))
    losses, owners = [spans.new_zeros(0, dtype=torch.float32)], [mask.new_zeros(0, dtype=torch.long)]
    for group in by_size.values():
        images, samples, pictures = (torch.cat(parts) for parts in zip(*group, strict=True))
        if len(images):
            losses.append(generator.loss(spans[images], mask[images], pictures))
            owners.append(samples)
    return DepthLosses(torch.cat(losses), torch.cat(owners), torch.cat(skipped))
