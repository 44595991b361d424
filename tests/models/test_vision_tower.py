import torch
from torch import Tensor
from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from lerobot_gem.models.presets import get_preset
from lerobot_gem.models.vision_tower import VisionTower

# Two of one size, one of another, two of one size again.
SIZES = torch.tensor([[1, 4, 4], [1, 4, 4], [1, 2, 6], [1, 4, 2], [1, 4, 2]])


def towers() -> tuple[Qwen3VLVisionModel, VisionTower]:
    """transformers' tower and ours with the same weights."""
    config = Qwen3VLConfig(**get_preset("tiny").backbone).vision_config
    towers = []
    for _ in range(2):
        torch.manual_seed(0)
        towers.append(Qwen3VLVisionModel._from_config(config).eval())
    theirs, ours = towers
    VisionTower.replace(ours)
    return theirs, ours


def patches(sizes: Tensor) -> Tensor:
    vision = Qwen3VLConfig(**get_preset("tiny").backbone).vision_config
    return torch.randn(
        int(sizes.prod(dim=1).sum()), vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    )


def test_it_sees_what_transformers_tower_sees_in_images_of_any_sizes():
    theirs, ours = towers()
    for sizes in (SIZES, SIZES[:2], SIZES[:1]):
        pixels = patches(sizes)
        expected, seen = theirs(pixels, grid_thw=sizes), ours(pixels, grid_thw=sizes)
        torch.testing.assert_close(seen.pooler_output, expected.pooler_output)
        torch.testing.assert_close(seen.last_hidden_state, expected.last_hidden_state)
        for feature, other in zip(seen.deepstack_features, expected.deepstack_features, strict=True):
            torch.testing.assert_close(feature, other)


def test_an_image_is_seen_the_same_beside_any_others():
    _, ours = towers()
    pixels = patches(SIZES)
    together = ours(pixels, grid_thw=SIZES).pooler_output
    first = ours(pixels[:16], grid_thw=SIZES[:1]).pooler_output
    assert torch.equal(together[:4], first)


def test_positions_may_be_computed_before():
    _, ours = towers()
    pixels = patches(SIZES)
    positions = ours.positions(SIZES)
    assert positions.lengths == (16, 16, 12, 8, 8)
    assert torch.equal(
        ours(pixels, positions=positions).pooler_output, ours(pixels, grid_thw=SIZES).pooler_output
    )
