"""Depth maps as the pictures that the depth generator learns, and back.

| colormap | value in [0, 1] | colormap | size |
|---|---|---|---|
| `spectral` (VLM stages) | inverse depth between its 2nd and 98th percentile, inverted: 0 is near | matplotlib's Spectral, near is red | longest side `max_side` (448), both sides multiples of 32 |
| `inferno` (VLA stage) | depth between its least and largest value, inverted: 1 is near | OpenCV's INFERNO, near is bright | `max_side` x `max_side` (256) |

Both as in the release (`visualize_depth`, `H5VLADepthDataset`), with two differences. Depth is valid strictly between
11 mm and 9.99 m, since LeRobot's video storage turns 0 into 10 mm and what is far into 10 m. And pixels without valid
depth are the farthest in both, where the release's `inferno` takes the zeros of float depth for the nearest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Colormap = Literal["spectral", "inferno"]
Target = Literal["depth", "rgb"]

MIN_DEPTH, MAX_DEPTH = 0.011, 9.99  # metres
MIN_DEPTH_MM, MAX_DEPTH_MM = (round(1000 * bound) for bound in (MIN_DEPTH, MAX_DEPTH))
MIN_DEPTH_SIDE = 32  # what the autoencoder compresses to one latent; sides are multiples of it
_PERCENTILE = 0.02
# With so many valid pixels or fewer, the release doesn't take percentiles and paints one colour.
_FEW_PIXELS = 10
# ColorBrewer's Spectral with 11 colours, between which matplotlib interpolates.
_SPECTRAL = "9e0142 d53e4f f46d43 fdae61 fee08b ffffbf e6f598 abdda4 66c2a5 3288bd 5e4fa2"
# Pixels whose colours are looked up at a time: each is compared with 256.
_LOOKUP = 1 << 16


class DepthTargets(NamedTuple):
    """What the generator learns.

    Args:
        pictures: (N, 3, h, w) in [-1, 1].
        has_depth: (N,) bool, False where a depth map has no valid pixel, or so few (10) that they say nothing of a
            scene. Its picture must not be learned.
    """

    pictures: Tensor
    has_depth: Tensor


@dataclass(frozen=True)
class _Colormap:
    """One of the published colormaps.

    Args:
        table: Makes the colormap (256, 3), 0 to 255.
        levels: A value v has entry floor(v * levels), but at most the last.
        values: Depth and validity, both (N, P), to values (N, P) in [0, 1].
        near: The value of the nearest.
        keeps_shape: Whether the picture has the depth map's aspect ratio, or is square.
    """

    table: Callable[[], Tensor]
    levels: int
    values: Callable[[Tensor, Tensor], Tensor]
    near: int
    keeps_shape: bool


def depth_target(
    depth: Tensor,
    *,
    colormap: Colormap,
    max_side: int = 448,
    rgb_size: tuple[int, int] | None = None,
) -> DepthTargets:
    """Paint depth maps, each normalised by itself.

    Args:
        depth: (N, 1, H, W) in metres; see `is_valid`.
        colormap: "spectral" or "inferno".
        max_side: Longest side of the pictures, in pixels.
        rgb_size: Height and width of the images that the depth belongs to, if the depth has others.

    Raises:
        ValueError: Unknown colormap, or shapes that don't fit.
    """
    if depth.ndim != 4 or depth.shape[1] != 1:
        raise ValueError(f"Depth maps have the shape (N, 1, H, W), but got {tuple(depth.shape)}.")
    depth = _of_size(depth.float(), rgb_size)
    values = depth_values(depth, colormap)
    size = target_size(*depth.shape[-2:], colormap=colormap, max_side=max_side)
    pictures = F.interpolate(paint(values, colormap), size=size, mode="bilinear", antialias=True)
    return DepthTargets(pictures, has_depth(depth))


def has_depth(depth: Tensor, rgb_size: tuple[int, int] | None = None) -> Tensor:
    """What `depth_target` finds to have depth, without painting: (N,) bool; arguments are its own."""
    return is_valid(_of_size(depth.float(), rgb_size)).flatten(1).sum(dim=1) > _FEW_PIXELS


def _of_size(depth: Tensor, rgb_size: tuple[int, int] | None) -> Tensor:
    if rgb_size is None or rgb_size == depth.shape[-2:]:
        return depth
    return F.interpolate(depth, size=rgb_size, mode="nearest-exact")


def rgb_target(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Camera frames themselves as what the generator learns: GEM's control arm, whose generator learns no geometry.

    The ablation of the generative target (arXiv 2605.28548) compares depth with it: RGB reconstruction scores lower on all
    three benchmarks. For pictures (N, 3, h, w) of the size that `depth_target` gives, so that nothing else differs.

    Args:
        images: (N, 3, H, W) in [0, 1].
        size: Height and width of the pictures; the aspect ratio may change, as that of depth does with `inferno`.

    Returns:
        (N, 3, *size) in [-1, 1].
    """
    return F.interpolate(images.float(), size=size, mode="bilinear", antialias=True) * 2 - 1


def is_valid(depth: Tensor) -> Tensor:
    """Where depth in metres is measured: strictly between `MIN_DEPTH` and `MAX_DEPTH`, and neither NaN nor infinite; bool."""
    return depth.isfinite() & (depth > MIN_DEPTH) & (depth < MAX_DEPTH)


def depth_values(depth: Tensor, colormap: Colormap) -> Tensor:
    """What a colormap paints of depth maps (N, 1, H, W) in metres: values of that shape in [0, 1].

    Raises:
        ValueError: Unknown colormap.
    """
    values = _colormap(colormap).values
    return values(depth.flatten(1), is_valid(depth).flatten(1)).view_as(depth)


def paint(values: Tensor, colormap: Colormap) -> Tensor:
    """Look up the colours of values.

    Args:
        values: (N, 1, H, W) in [0, 1], beyond which colours stay the same.
        colormap: Its colormap is used; of what the values are of, nothing is assumed.

    Returns:
        (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: Unknown colormap.
    """
    chosen = _colormap(colormap)
    table = chosen.table().to(values.device) / 127.5 - 1
    entries = (values * chosen.levels).long().clamp(0, len(table) - 1)
    return table[entries[:, 0]].movedim(-1, 1)


def target_size(height: int, width: int, *, colormap: Colormap, max_side: int = 448) -> tuple[int, int]:
    """Height and width of the picture of a depth map.

    Raises:
        ValueError: Unknown colormap, or `max_side` is below 32.
    """
    if max_side < MIN_DEPTH_SIDE:
        raise ValueError(
            f"max_side={max_side} of depth pictures: expected at least {MIN_DEPTH_SIDE} (448 in the release's VLM stages)."
        )
    longest = max(height, width)
    if not _colormap(colormap).keeps_shape:
        height = width = longest
    sides = (side * max_side // longest // MIN_DEPTH_SIDE * MIN_DEPTH_SIDE for side in (height, width))
    height, width = (max(side, MIN_DEPTH_SIDE) for side in sides)
    return height, width


def relative_depth(pictures: Tensor, colormap: Colormap) -> Tensor:
    """Read a painted depth map: the inverse of the colormap, for any colours.

    Each pixel takes the place on the colormap that is nearest to its colour, between two entries too.

    Args:
        pictures: (N, 3, h, w) in [0, 1].
        colormap: That the pictures were painted with.

    Returns:
        (N, 1, h, w) nearness, 0 the farthest and 1 the nearest. It is affine in inverse depth for "spectral" and in
        depth for "inferno", but for what was clipped.

    Raises:
        ValueError: Unknown colormap.
    """
    chosen = _colormap(colormap)
    table = chosen.table().to(pictures.device) / 255
    colours = pictures.float().movedim(1, -1).reshape(-1, 3)
    places = torch.cat([_nearest_place(part, table) for part in colours.split(_LOOKUP)])
    values = ((places + 0.5) / chosen.levels).clamp(0, 1)
    nearness = values if chosen.near else 1 - values
    return nearness.view(len(pictures), 1, *pictures.shape[-2:])


def is_inverse(colormap: Colormap) -> bool:
    """Whether a colormap shows inverse depth, not depth."""
    return colormap == "spectral"


def _nearest_place(colours: Tensor, table: Tensor) -> Tensor:
    """Places (P,) in [0, 255] of colours (P, 3) on the line through the entries of a table (256, 3)."""
    entry = torch.cdist(colours, table).argmin(dim=1)
    places, distances = [], []
    for step in (-1, 1):
        line = table[(entry + step).clamp(0, 255)] - table[entry]
        offset = colours - table[entry]
        part = ((offset * line).sum(-1) / line.square().sum(-1).clamp(min=1e-12)).clamp(0, 1)
        places.append(entry + step * part)
        distances.append((offset - part[:, None] * line).square().sum(-1))
    return torch.where(distances[0] < distances[1], places[0], places[1])


def _inverse_percentiles(depth: Tensor, valid: Tensor) -> Tensor:
    """1 minus inverse depth between its percentiles, each map by itself; (N, P) to (N, P)."""
    inverse = torch.where(valid, 1 / depth, 0)
    count = valid.sum(dim=1, keepdim=True)
    # One sort for both; torch.quantile can't leave pixels out and takes no more than 16 M.
    ordered = inverse.masked_fill(~valid, torch.inf).sort(dim=1).values
    low, high = (
        _at_rank(ordered, part * (count - 1).clamp(min=0)) for part in (_PERCENTILE, 1 - _PERCENTILE)
    )
    low, high = (torch.where(count > _FEW_PIXELS, bound, 0) for bound in (low, high))
    flat = low == high
    low, high = torch.where(flat, low - 1e-6, low), torch.where(flat, high + 1e-6, high)
    return 1 - ((inverse - low) / (high - low)).clamp(0, 1)


def _at_rank(ordered: Tensor, rank: Tensor) -> Tensor:
    below = rank.long()
    above = (below + 1).clamp(max=ordered.shape[1] - 1)
    return torch.lerp(ordered.gather(1, below), ordered.gather(1, above), rank - below)


def _inverted_range(depth: Tensor, valid: Tensor) -> Tensor:
    """1 minus depth between its least and largest value, each map by itself; (N, P) to (N, P)."""
    low = depth.masked_fill(~valid, torch.inf).amin(dim=1, keepdim=True)
    high = depth.masked_fill(~valid, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(valid, 1 - (depth - low) / (high - low).clamp(min=1e-6), 0)


@cache
def _spectral() -> Tensor:
    """As `matplotlib.colormaps["Spectral"]` with 256 entries, truncated to bytes; computed as there, to the last bit."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _SPECTRAL.split()]) / 255
    places, known = (255 * np.linspace(0, 1, count) for count in (256, len(anchors)))
    channels = [np.interp(places, known, channel) for channel in anchors.T]
    return torch.from_numpy(np.stack(channels, axis=1) * 255).floor().float()


@cache
def _inferno() -> Tensor:
    import cv2  # configurations, which every LeRobot command imports, name the colormaps

    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)
    return torch.from_numpy(bgr[:, 0, ::-1].copy()).float()


_COLORMAPS = {
    "spectral": _Colormap(_spectral, levels=256, values=_inverse_percentiles, near=0, keeps_shape=True),
    "inferno": _Colormap(_inferno, levels=255, values=_inverted_range, near=1, keeps_shape=False),
}


def _colormap(name: str) -> _Colormap:
    if name not in _COLORMAPS:
        raise ValueError(f"Unknown colormap {name!r}; choose one of {', '.join(map(repr, _COLORMAPS))}.")
    return _COLORMAPS[name]
