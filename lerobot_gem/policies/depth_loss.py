"""The depth loss of a batch: which depth map belongs to which vision span."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_configuration import DepthSupervision
from lerobot_gem.processing.depth_cameras import metres
from lerobot_gem.processing.depth_target import depth_target, rgb_target


class DepthLosses(NamedTuple):
    """Losses of the images that have depth.

    Attributes:
        per_image: (M,).
        samples: (M,), the sample that each image belongs to.
        skipped: Images whose depth map has no valid pixel.
    """

    per_image: Tensor
    samples: Tensor
    skipped: int

    def per_sample(self, batch_size: int) -> Tensor:
        """(B,) shares of the mean over all images."""
        return per_sample(self.per_image, self.samples, batch_size)

    def logs(self, batch_size: int) -> dict[str, float]:
        """The same keys for every batch, as LeRobot's reduction over processes needs."""
        return {
            "depth_loss": mean(self.per_image),
            "frames_with_depth": len(self.samples.unique()) / batch_size,
            "images_without_depth": float(self.skipped),
        }


def depth_losses(
    generator: DepthGenerator,
    spans: Tensor,
    mask: Tensor,
    shown: Sequence[tuple[int, int]],
    batch: Mapping[str, Tensor],
    cameras: Sequence[str],
    supervision: DepthSupervision,
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

    Raises:
        ValueError: A depth key is missing, or its values can't be in `supervision.unit`.
    """
    by_camera = defaultdict(list)
    for image, (sample, position) in enumerate(shown):
        if cameras[position] in supervision.cameras:
            by_camera[cameras[position]].append((image, sample))
    # Pictures of one size go through the generator together, whichever camera they are from.
    by_size: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    skipped = 0
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
        skipped += int((~keep).sum())
        by_size[pictures.shape[1:]].append((images[keep], samples[keep], pictures[keep]))
    losses, owners = [spans.new_zeros(0, dtype=torch.float32)], [mask.new_zeros(0, dtype=torch.long)]
    for group in by_size.values():
        images, samples, pictures = (torch.cat(parts) for parts in zip(*group, strict=True))
        if len(images):
            losses.append(generator.loss(spans[images], mask[images], pictures))
            owners.append(samples)
    return DepthLosses(torch.cat(losses), torch.cat(owners), skipped)


def per_sample(values: Tensor, samples: Tensor, batch_size: int) -> Tensor:
    """(B,) shares of each sample in the mean of `values` (M,), such that their mean is that mean.

    Samples with more values weigh more, as in one mean over all; zero where a sample has none.
    """
    shares = values.new_zeros(batch_size).index_add(0, samples, values)
    return shares * batch_size / max(len(values), 1)


def mean(values: Tensor) -> float:
    """Mean for the logs; 0 of none."""
    return values.mean().item() if len(values) else 0.0
