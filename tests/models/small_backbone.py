"""A backbone of the preset `tiny` with weights that tell tokens apart, and prompts of two lengths, padded on the left."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen3VLConfig

from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.presets import get_preset


def small_backbone(*, tied: bool = True) -> GemBackbone:
    config = Qwen3VLConfig(**get_preset("tiny").backbone | {"tie_word_embeddings": tied})
    config.text_config.tie_word_embeddings = tied
    torch.manual_seed(0)
    backbone = GemBackbone(config, language_head=True).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():  # a fresh model may write the same token for ever
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


@dataclass(frozen=True)
class Prompts:
    """Of one image of 64 px each, and some text."""

    tokens: Tensor
    mask: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor

    def row(self, index: int) -> "Prompts":
        """One prompt without its padding."""
        real = self.mask[index].bool()
        patches = len(self.pixel_values) // len(self.tokens)
        return Prompts(
            self.tokens[index : index + 1, real],
            self.mask[index : index + 1, real],
            self.pixel_values[index * patches : (index + 1) * patches],
            self.image_grid_thw[index : index + 1],
        )

    def __iter__(self):
        return iter((self.tokens, self.mask, self.pixel_values, self.image_grid_thw))


def prompts(backbone: GemBackbone, *text_lengths: int) -> Prompts:
    """One prompt for each length of text."""
    config = backbone.config
    image = [config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id]
    longest = len(image) + max(text_lengths)
    torch.manual_seed(1)
    rows = [image + torch.randint(100, 500, (length,)).tolist() for length in text_lengths]
    vision = config.vision_config
    patch_dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return Prompts(
        torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
        torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        torch.randn(16 * len(rows), patch_dim),
        torch.tensor([[1, 4, 4]] * len(rows)),
    )
