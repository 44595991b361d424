"""Prompts of random pictures, as the backbone takes them."""

from typing import Any

import torch
from torch import Tensor


def random_prompts(
    config: Any, *, image_side: int, cameras: int, text_tokens: int, rows: int = 1
) -> dict[str, Tensor]:
    """Prompts with equal tokens and other patches each time.

    Args:
        config: Of a Qwen3-VL.
        image_side: Pixels.
        cameras: Pictures of each prompt.
        text_tokens: Behind the pictures.
        rows: Prompts.

    Returns:
        `input_ids` and `attention_mask` (rows, tokens), `pixel_values` (patches, values) and `image_grid_thw` (pictures, 3).
    """
    vision = config.vision_config
    side = image_side // vision.patch_size
    tokens = (side // vision.spatial_merge_size) ** 2
    picture = [config.vision_start_token_id, *[config.image_token_id] * tokens, config.vision_end_token_id]
    ids = torch.tensor([[*picture * cameras, *range(100, 100 + text_tokens)]] * rows)
    patch_dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(rows * cameras * side**2, patch_dim),
        "image_grid_thw": torch.tensor([[1, side, side]] * cameras * rows),
    }
