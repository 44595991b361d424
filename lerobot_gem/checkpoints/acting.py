"""A `gem_vla` checkpoint that acts and holds nothing else.

Training keeps weights that acting never reads: the depth generator, the decoder layers behind those that the expert reads, and
float32 of what is computed in bfloat16. What is written without them loads as any checkpoint does.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig

from lerobot_gem.checkpoints.files import StoredTensor, write_weights
from lerobot_gem.checkpoints.formats import Checkpoint
from lerobot_gem.models.backbone import GemBackbone

_POSITIONS = ".pos_embed."  # added to what the vision tower computes, in float32


@dataclass(frozen=True)
class CastTensor(StoredTensor):
    """A stored tensor that is read in another type, its `dtype`."""

    def read(self) -> Tensor:
        return super().read().to(self.dtype)


def write_acting(source: Checkpoint, output_dir: Path) -> None:
    """Write what of a policy acts, its layers in the type that it computes in.

    Args:
        source: A `gem_vla` policy.
        output_dir: Folder to write.

    Raises:
        ValueError: The source does not act, or version 0.1 wrote it. Nothing was written then.
    """
    by_tokens = source.config.get("action_tokens", {}).get("act") == "tokens"
    config = _acting_config(source, by_tokens=by_tokens)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "config.json").write_text(json.dumps(config, indent=4) + "\n")
    for file in source.path.glob("policy_*processor*"):
        shutil.copyfile(file, output_dir / file.name)
    with torch.device("meta"):
        backbone = GemBackbone(
            Qwen3VLConfig.from_dict(source.backbone_config),
            num_layers=None if by_tokens else max(config["expert"]["conditioning_layers"]),
            language_head=by_tokens,
            key_values=source.expert_conditioning == "key_values",
        )
    dtype = getattr(torch, config["dtype"])
    weights = {}
    for name, stored in source.weights.items():
        part, _, rest = name.partition(".")
        if part == "generator" or (part == "backbone" and backbone.has_no_place_for(rest)):
            continue
        is_layer = name.endswith(".weight") and len(stored.shape) > 1 and _POSITIONS not in name
        weights[name] = _cast(stored, dtype) if is_layer else stored
    size = sum(stored.num_bytes for stored in weights.values())
    write_weights(output_dir, weights, max_shard_bytes=size)


def _cast(stored: StoredTensor, dtype: torch.dtype) -> StoredTensor:
    return CastTensor(**vars(replace(stored, dtype=dtype)))


def _acting_config(source: Checkpoint, *, by_tokens: bool) -> dict[str, Any]:
    if source.format != "policy" or source.config.get("type") != "gem_vla":
        kind = source.config.get("type", source.format)
        raise ValueError(
            f"{source.path} is a {kind!r} checkpoint, which does not act: expected a 'gem_vla' policy (its pretrained_model)."
        )
    if "built" not in source.config:
        raise ValueError(
            f"{source.path} was written by version 0.1: expected a checkpoint of this version. Load it "
            "(GemVLAPolicy.from_pretrained), save it (save_pretrained) with its processors, and convert that."
        )
    config = source.config
    built = config["built"] | {"generator": {}, "questions": ""}
    if not by_tokens:  # the layers that write them are left out
        built["action_turn"] = {}
    learned = {
        name: config[name] | off
        for name, off in (
            ("depth", {"loss_weight": 0.0}),
            ("action_tokens", {"loss_weight": 0.0, "insulate": False}),
            ("co_training", {"loss_weight": 0.0, "repo_id": None}),
        )
        if name in config
    }
    return config | {
        "weights": config["dtype"],
        "built": built,
        **learned,
    }
