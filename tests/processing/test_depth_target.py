import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lerobot_gem.processing import depth_target as module
from lerobot_gem.processing.depth_target import (
    depth_target,
    depth_values,
    is_inverse,
    paint,
    relative_depth,
    rgb_target,
    target_size,
)

COLORMAPS = pytest.mark.parametrize("colormap", ["spectral", "inferno"])


def scene(height: int = 64, width: int = 96) -> Tensor:
    """A floor from 0.5 to 3 m with a box at 0.8 m on it (1, 1, H, W)."""
    depth = torch.linspace(3, 0.5, height)[:, None].repeat(1, width)
    depth[height // 2 : height * 3 // 4, width // 4 : width // 2] = 0.8
    return depth[None, None]


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as the 8-bit values that they stand for."""
    return ((pictures + 1) * 127.5).round().to(torch.uint8)


# --- parity with the official code ----------------------------------------------------------------------------


def check(name: str, pictures: Tensor, expected: Tensor, *, within: int = 0) -> None:
    """Compare one picture of (1, 3, h, w) with bytes (3, h, w) and report the largest deviation (`pytest -s`)."""
    error = (as_bytes(pictures)[0].int() - expected.int()).abs().max()
    print(f"\n{name}: max abs error {error} of 255", end="")
    assert error <= within, name


@pytest.fixture
def any_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """All finite depth is valid, as in the release's `inferno`."""
    monkeypatch.setattr(module, "MIN_DEPTH", -math.inf)
    monkeypatch.setattr(module, "MAX_DEPTH", math.inf)


@pytest.fixture
def positive_is_valid(any_is_valid: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in its `spectral`."""
    monkeypatch.setattr(module, "MIN_DEPTH", 0.0)


@pytest.mark.parity
@pytest.mark.usefixtures("positive_is_valid")
def test_spectral_colours(depth_colour):
    for name in depth_colour.spec["config"]["visualize"]:
        depth = depth_colour[f"in.metric.{name}"][None, None]
        pictures = paint(depth_values(depth, "spectral"), "spectral")
        check(name, pictures, depth_colour[f"out.spectral.{name}"].movedim(-1, 0))


@pytest.mark.parity
@pytest.mark.usefixtures("positive_is_valid")
def test_spectral_targets(depth_colour):
    for name, (width, height, max_side) in depth_colour.spec["config"]["png16"].items():
        pictures, _ = depth_target(
            depth_colour[f"in.png16.{name}"][None, None],
            colormap="spectral",
            max_side=max_side,
            rgb_size=(height, width),
        )
        check(name, pictures, depth_colour[f"out.png16_target_uint8.{name}"], within=1)


@pytest.mark.parity
@pytest.mark.usefixtures("any_is_valid")
def test_inferno_colours(depth_colour):
    for name in depth_colour.spec["config"]["colorize"]:
        pictures = paint(depth_colour[f"in.unit.{name}"][None, None], "inferno")
        check(name, pictures, depth_colour[f"out.colorize_depth.{name}"].movedim(-1, 0))
    for name, kind in depth_colour.spec["config"]["h5"].items():
        depth = depth_colour[f"in.h5.{name}"].float()
        depth = depth[..., 0] if depth.ndim == 3 else depth
        if kind.startswith("uint"):  # the release divides integers by their range; depth in metres has none
            values = 1 - depth[None, None] / (255 if "8" in kind else 65535)
        else:
            values = depth_values(depth[None, None], "inferno")
        check(name, paint(values, "inferno"), depth_colour[f"out.inferno.{name}"].movedim(-1, 0))


@pytest.mark.parity
@pytest.mark.usefixtures("any_is_valid")
def test_inferno_targets(depth_colour):
    spec = depth_colour.spec["config"]
    for name, kind in spec["h5"].items():
        for size in [*spec["sizes"], *([256] if name in spec["size256"] else [])]:
            if kind.startswith("float"):
                depth = depth_colour[f"in.h5.{name}"][None, None]
                pictures, _ = depth_target(depth, colormap="inferno", max_side=size)
                expected = depth_colour[f"out.inferno_target{size}_uint8.{name}"]
                check(f"{name} {size}", pictures, expected, within=1)


# --- the whole way ----------------------------------------------------------------------------------------------


@COLORMAPS
def test_maps_are_painted_each_by_itself(colormap):
    near, far = scene(), scene() * 2.5
    together = depth_target(torch.cat([near, far]), colormap=colormap, max_side=96)
    for i, depth in enumerate((near, far)):
        alone = depth_target(depth, colormap=colormap, max_side=96)
        assert torch.equal(alone.pictures[0], together.pictures[i])
    assert together.pictures.min() >= -1 and together.pictures.max() <= 1


@COLORMAPS
def test_nearness_is_read_back(colormap):
    """To half an entry of the colormap."""
    depth = scene()
    nearness = relative_depth(paint(depth_values(depth, colormap), colormap) / 2 + 0.5, colormap)
    shown = 1 / depth if is_inverse(colormap) else -depth
    low, high = np.percentile(shown, [2, 98] if colormap == "spectral" else [0, 100])
    assert (nearness - ((shown - low) / (high - low)).clamp(0, 1)).abs().max() < 1 / 500


@COLORMAPS
def test_any_colour_reads_as_the_nearest_on_the_map(colormap):
    values = torch.linspace(0, 1, 1024)[None, None, None]
    clean = relative_depth(paint(values, colormap) / 2 + 0.5, colormap)
    noise = 0.02 * torch.randn(1, 3, 1, 1024, generator=torch.Generator().manual_seed(0))
    noisy = relative_depth(paint(values, colormap) / 2 + 0.5 + noise, colormap)
    assert (noisy - clean).abs().median() < 0.01
    between = (paint(values[..., 500:501], colormap) + paint(values[..., 505:506], colormap)) / 4 + 0.5
    low, high = clean[0, 0, 0, 500], clean[0, 0, 0, 505]
    assert min(low, high) < relative_depth(between, colormap).item() < max(low, high)


@COLORMAPS
@pytest.mark.parametrize("invalid", [0.0, 0.01, 10.0, 12.0, math.nan, math.inf, -math.inf])
def test_invalid_pixels_are_the_farthest_and_change_no_other(colormap, invalid):
    depth = scene()
    depth[..., :32] = invalid
    pictures, has_depth = depth_target(depth, colormap=colormap, max_side=96)
    nearness = relative_depth(pictures / 2 + 0.5, colormap)
    nearness = torch.nn.functional.interpolate(nearness, size=depth.shape[-2:])
    assert has_depth.all()
    assert nearness[..., :31].max() < 0.01
    valid, _ = depth_target(depth[..., 32:], colormap=colormap, max_side=64)
    if colormap == "spectral":
        assert torch.equal(pictures[..., 32:], valid)


@COLORMAPS
def test_maps_without_depth_are_told_and_finite(colormap):
    depth = scene().repeat(4, 1, 1, 1)
    depth[1], depth[2] = 0, math.nan
    depth[3].flatten()[10:] = 0  # ten pixels say nothing of a scene
    pictures, has_depth = depth_target(depth, colormap=colormap, max_side=96)
    assert has_depth.tolist() == [True, False, False, False]
    assert pictures.isfinite().all()


@COLORMAPS
def test_flat_depth_is_one_colour(colormap):
    pictures, has_depth = depth_target(torch.full((1, 1, 32, 32), 2.0), colormap=colormap, max_side=32)
    assert has_depth.all() and pictures.isfinite().all()
    assert (pictures.flatten(2).amax(dim=2) - pictures.flatten(2).amin(dim=2)).max() < 1e-6


@pytest.mark.parametrize(
    ("size", "max_side", "spectral", "inferno"),
    [
        ((480, 640), 448, (320, 448), (448, 448)),
        ((128, 128), 448, (448, 448), (448, 448)),
        ((80, 168), 448, (192, 448), (448, 448)),
        ((20, 900), 256, (32, 256), (256, 256)),
        ((64, 64), 100, (96, 96), (96, 96)),
    ],
)
def test_sizes(size, max_side, spectral, inferno):
    for colormap, expected in (("spectral", spectral), ("inferno", inferno)):
        assert target_size(*size, colormap=colormap, max_side=max_side) == expected
        depth = torch.rand(1, 1, *size) + 1
        pictures, _ = depth_target(depth, colormap=colormap, max_side=max_side)
        assert pictures.shape[-2:] == expected


def test_the_control_is_the_picture_at_the_size_of_its_depth():
    images = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    same = rgb_target(images, (40, 60))
    torch.testing.assert_close(same / 2 + 0.5, images)
    small = rgb_target(images, target_size(40, 60, colormap="inferno", max_side=32))
    assert small.shape == (2, 3, 32, 32) and small.abs().max() <= 1
    torch.testing.assert_close(small.mean(dim=(2, 3)) / 2 + 0.5, images.mean(dim=(2, 3)), atol=0.02, rtol=0)


def test_depth_of_another_size_is_not_blended():
    """Between a near and a far surface there is no third one."""
    depth = torch.where(torch.arange(64) < 32, 1.0, 3.0).expand(1, 1, 64, 64)
    pictures, _ = depth_target(depth, colormap="spectral", max_side=32, rgb_size=(32, 32))
    nearness = relative_depth(pictures / 2 + 0.5, "spectral")
    assert ((nearness < 0.01) | (nearness > 0.99)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colormap": "viridis"}, "'viridis'; choose one of 'spectral', 'inferno'"),
        ({"max_side": 31}, "max_side=31.*at least 32"),
        ({"depth": torch.ones(2, 3, 64, 64)}, r"\(N, 1, H, W\), but got \(2, 3, 64, 64\)"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        depth_target(**({"depth": scene(), "colormap": "spectral"} | change))
