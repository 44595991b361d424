"""Depth models for tests, registered with transformers: one that reads depth from the pixels, and tiny real ones.

No weights can be downloaded here, and a random network says nothing about alignment. `PixelDepth` does: its depth of a
pixel is a known function of that pixel's colour.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import DepthEstimatorOutput


class PixelDepthConfig(PretrainedConfig):
    model_type = "pixel_depth"


class PixelDepth(PreTrainedModel):
    """Metres: 0.256 for each step of red and 0.001 for each of green, so that R G are the bytes of millimetres."""

    config_class = PixelDepthConfig

    def __init__(self, config: PixelDepthConfig) -> None:
        super().__init__(config)
        self.scale = nn.Parameter(torch.tensor([0.256, 0.001, 0.0]))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def forward(self, pixel_values: Tensor) -> DepthEstimatorOutput:
        weighted = pixel_values.float() * self.scale[:, None, None]
        return DepthEstimatorOutput(predicted_depth=weighted.sum(dim=1))


AutoConfig.register("pixel_depth", PixelDepthConfig)
AutoModelForDepthEstimation.register(PixelDepthConfig, PixelDepth)
AutoImageProcessor.register(PixelDepthConfig, image_processor_classes={"torchvision": DPTImageProcessor})


def save_pixel_depth(folder: Path) -> Path:
    """A folder to load `PixelDepth` from; nothing tells that it predicts metres."""
    PixelDepth(PixelDepthConfig()).save_pretrained(folder)
    DPTImageProcessor(do_resize=False, do_rescale=False, do_normalize=False, do_pad=False).save_pretrained(
        folder
    )
    return folder


def save_depth_anything(folder: Path, depth_type: str = "relative", side: int = 56) -> Path:
    """A folder with a random Depth Anything of 90,000 weights and its image processor, as they are published."""
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=side,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=depth_type,
        max_depth=20 if depth_type == "metric" else None,
    )
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        # The published initialisation (0.02) predicts nearly the same everywhere, or nothing behind the last ReLU.
        for name, weight in model.named_parameters():
            if name.startswith(("neck", "head")) and weight.ndim > 1:
                nn.init.xavier_normal_(weight)
        model.head.conv3.bias.fill_(1.0)
    model.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": side, "width": side},
        ensure_multiple_of=14,
        keep_aspect_ratio=True,
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder
