"""Models that can be asked: the backbone of a checkpoint of any format, made ready to answer."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.utils.device_utils import auto_select_torch_device, get_safe_torch_device
from transformers import Qwen3VLConfig
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from lerobot_gem.checkpoints.formats import Checkpoint, open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.inference.answering import Answerer
from lerobot_gem.inference.devices import check_device
from lerobot_gem.models.precision import store_as_autocast_computes
from lerobot_gem.processing.images import CameraImages


def load_answerer(
    pretrained: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_new_tokens: int = 256,
) -> Answerer:
    """Load the backbone of a checkpoint, and nothing else of it, to answer questions.

    Args:
        pretrained: Hub id or folder of a `gem` policy, of GEM-2B's format, or of Qwen3-VL.
        device: "cuda", "cpu", ...; None takes the fastest there is.
        dtype: "float32" or "bfloat16"; None is a policy's own, or the type of the stored weights.
        min_pixels: Smallest image area; None is the checkpoint's own.
        max_pixels: Largest image area; None is the checkpoint's own.
        max_new_tokens: Where a longer answer is cut.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It has no backbone, or one that is truncated or without language head; or `min_pixels` is more than
            `max_pixels`. Or this machine does not have the device.
        OSError: It comes without tokenizer, or without image processor.
    """
    if device is not None:
        check_device(device, "policy.device")
    checkpoint = open_checkpoint(pretrained)
    _check_language_model(checkpoint)
    if checkpoint.format == "policy":
        policy: Any = PreTrainedConfig.from_pretrained(checkpoint.path)
        images = policy.images
        # As the policy itself computes: its weights, and autocast.
        weights_dtype, bfloat16 = torch.float32, (dtype or policy.dtype) == "bfloat16"
    else:
        images = _images_of_qwen(checkpoint)
        stored = checkpoint.weights["backbone.model.language_model.embed_tokens.weight"].dtype
        weights_dtype, bfloat16 = (getattr(torch, dtype) if dtype else stored), False
    images = replace(
        images, min_pixels=min_pixels or images.min_pixels, max_pixels=max_pixels or images.max_pixels
    )
    if images.min_pixels > images.max_pixels:
        raise ValueError(
            f"min_pixels={images.min_pixels} and max_pixels={images.max_pixels}: expected the first to be the smaller one; "
            "those not given are the model's."
        )
    set_types = partial(store_as_autocast_computes, dtype=torch.bfloat16) if bfloat16 else None
    backbone = load_backbone(checkpoint, language_head=True, dtype=weights_dtype, set_types=set_types)
    backbone.to(get_safe_torch_device(device) if device else auto_select_torch_device()).eval()
    return Answerer(backbone, images, load_tokenizer(checkpoint), bfloat16, max_new_tokens)


def _images_of_qwen(checkpoint: Checkpoint) -> CameraImages:
    """The patches of the checkpoint's own image processor."""
    processor = Qwen2VLImageProcessor.from_pretrained(checkpoint.path)
    return CameraImages(
        cameras=[],
        layout="separate",
        patch_size=processor.patch_size,
        temporal_patch_size=processor.temporal_patch_size,
        merge_size=processor.merge_size,
        min_pixels=processor.size["shortest_edge"],
        max_pixels=processor.size["longest_edge"],
    )


def _check_language_model(checkpoint: Checkpoint) -> None:
    """Raise a ValueError if the checkpoint's backbone can't write."""
    weights = checkpoint.part("backbone")
    config = Qwen3VLConfig.from_dict(checkpoint.backbone_config)
    depth = config.get_text_config().num_hidden_layers
    kept = sum(name.endswith(".input_layernorm.weight") and ".language_model." in name for name in weights)
    remedy = "Evaluate the `gem` checkpoint or the Qwen3-VL that its backbone came from."
    if kept < depth:
        raise ValueError(
            f"{checkpoint.path} can't answer: it keeps {kept} of {depth} decoder layers, as a gem_vla policy "
            f"without depth loss does, whose expert reads no more. {remedy}"
        )
    if not config.tie_word_embeddings and "lm_head.weight" not in weights:
        raise ValueError(f"{checkpoint.path} can't answer: it has no language head. {remedy}")
