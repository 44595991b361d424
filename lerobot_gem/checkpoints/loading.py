"""The backbone from a checkpoint of any layout that holds one."""

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3VLConfig
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints.files import load_weights
from lerobot_gem.checkpoints.layouts import open_checkpoint
from lerobot_gem.models.backbone import GemBackbone


def load_backbone(
    pretrained: str | Path,
    *,
    num_layers: int | None = None,
    language_head: bool = False,
    dtype: torch.dtype = torch.float32,
    **hub_kwargs: Any,
) -> GemBackbone:
    """Load Qwen3-VL, or the backbone of a checkpoint of GEM-2B's layout or of our policies.

    Args:
        pretrained: Hub id or folder. Decoder layers past `num_layers`, a depth generator and a language head that is
            not asked for are skipped; any other weight without a place is an error.
        num_layers: Decoder layers to keep; None for all.
        language_head: Load the language head too.
        dtype: Of the loaded weights.
        **hub_kwargs: `revision`, `cache_dir`, `local_files_only` and the like.

    Raises:
        FileNotFoundError: Neither a folder nor a Hub id that can be reached or is in the cache.
        ValueError: No backbone in it, cut short, or a weight is missing, unexpected or mis-shaped; the message names it.
    """
    checkpoint = open_checkpoint(pretrained, **hub_kwargs)
    with no_init_weights():
        config = Qwen3VLConfig.from_dict(checkpoint.backbone_config)
        backbone = GemBackbone(config, num_layers=num_layers, language_head=language_head).to(dtype)
    weights = checkpoint.part("backbone")
    load_weights(
        backbone,
        {name: weight for name, weight in weights.items() if not backbone.has_no_place_for(name)},
        fault=f"The weights in {pretrained} do not fit its config.json",
    )
    return backbone
