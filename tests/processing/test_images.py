"""Patches are those that transformers makes of the same images."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from lerobot_gem.processing.images import CameraImages

SIZES = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
PIXELS = {"min_pixels": 64 * 64, "max_pixels": 128 * 128}
CAMERAS = ("observation.images.front", "observation.images.wrist")


def images_of(layout: str = "separate") -> CameraImages:
    return CameraImages(CAMERAS, layout, **SIZES, **PIXELS)


@pytest.mark.parametrize("size", [(128, 128), (250, 333), (40, 70)])
def test_patches_are_those_of_the_bytes_of_an_image(size: tuple[int, int]) -> None:
    """Blocks of black and white and of noise: resized as floats, they would overshoot both."""
    random = np.random.default_rng(0)
    height, width = size
    blocks = (np.indices(size).sum(axis=0) // 9 % 2 * 255).astype(np.uint8)
    image = np.stack(
        [blocks, random.integers(0, 256, size, np.uint8), random.integers(0, 256, size, np.uint8)]
    )
    processor = Qwen2VLImageProcessor(**SIZES, **PIXELS, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    expected = processor(torch.from_numpy(image), input_data_format="channels_first", return_tensors="pt")
    patches, grid = images_of().patches_of([torch.from_numpy(image).float() / 255])
    assert torch.equal(patches, expected["pixel_values"]) and patches.abs().max() <= 1
    assert torch.equal(grid, expected["image_grid_thw"])
    assert int(grid.prod()) == 4 * images_of().token_count(height, width)


def test_images_stand_in_the_order_that_is_asked_for() -> None:
    images = images_of()
    observation = {key: torch.rand(2, 3, 64, 64) for key in CAMERAS}
    shown = [(1, 0), (0, 1), (1, 1)]
    patches, _ = images.patches(observation, shown)
    alone = [images.patches_of([observation[CAMERAS[camera]][sample]])[0] for sample, camera in shown]
    assert torch.equal(patches, torch.cat(alone))
    every, _ = images.patches(observation)
    assert torch.equal(every[: len(alone[0])], images.patches_of([observation[CAMERAS[0]][0]])[0])


def test_side_by_side_images_are_one() -> None:
    images = images_of("concat")
    observation = {CAMERAS[0]: torch.zeros(1, 3, 64, 32), CAMERAS[1]: torch.ones(1, 3, 64, 64)}
    assert images.token_counts(observation) == [images.token_count(64, 96)]
    patches, grid = images.patches(observation)
    assert len(grid) == 1 and patches.min() == -1 and patches.max() == 1
    observation[CAMERAS[1]] = torch.ones(1, 3, 32, 64)
    with pytest.raises(ValueError, match="needs cameras of one height"):
        images.token_counts(observation)


@pytest.mark.parametrize("channels", [1, 4])
def test_frames_of_other_channels_are_named(channels: int):
    with pytest.raises(ValueError, match=f"{CAMERAS[1]} has {channels} channels: expected 3"):
        images_of().patches(
            {CAMERAS[0]: torch.zeros(1, 3, 64, 64), CAMERAS[1]: torch.zeros(1, channels, 64, 64)}
        )
