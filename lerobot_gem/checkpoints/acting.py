"""A `gem_vla` checkpoint that acts and holds nothing else.

Training keeps weights that acting never reads: the depth generator, the decoder layers behind those that the expert reads, and
float32 of what is computed in bfloat16. What is written without them loads as any checkpoint does.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3VLConfig

from lerobot_gem.checkpoints.files import StoredTensor, check_weights, is_exact, write_policy
from lerobot_gem.checkpoints.formats import Checkpoint, built_from
from lerobot_gem.checkpoints.loading import kept_layers
from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.precision import autocast_weights, token_tables
from lerobot_gem.models.presets import ExpertArchitecture

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CastTensor(StoredTensor):
    """A stored tensor that is read in another type, its `dtype`.

    Args:
        source: As it is stored, merged with an adapter or not.
    """

    source: StoredTensor

    def read(self) -> Tensor:
        return self.source.read().to(self.dtype)[self.rows]


def write_acting(source: Checkpoint, output_dir: Path) -> None:
    """Write what of a policy acts, in the types that the policy has when it is loaded to act (`models/precision.py`).

    Args:
        source: A `gem_vla` policy.
        output_dir: Folder to write.

    Raises:
        ValueError: The source does not act, its weights do not fit its configuration, or version 0.1 wrote it. Nothing was
            written then.
    """
    by_tokens = source.config.get("action_tokens", {}).get("act") == "tokens"
    config = _acting_config(source, by_tokens=by_tokens)
    with built_from(source.path / "config.json"):
        try:
            parts = _acting_parts(source, config, by_tokens=by_tokens)
        except RuntimeError as error:  # no memory is used yet, so that sizes alone can be wrong
            raise ValueError(f"'built' has sizes of no model ({error}).") from error
    weights = _acting_weights(source, parts)
    if not by_tokens and source.config["built"].get("action_turn"):
        logger.warning(
            "%s acts by flow: what writes its action tokens is left out of %s, which can't act by them later. Expected "
            "action_tokens.act='tokens' in its config.json to keep it.",
            source.path,
            output_dir,
        )
    dtype = getattr(torch, config["dtype"])
    cast = autocast_weights(parts) | {
        name for name in token_tables(parts) if is_exact(weights[name].read(), dtype)
    }
    weights |= {
        name: CastTensor(
            file=source.path, name=name, shape=weights[name].shape, dtype=dtype, source=weights[name]
        )
        for name in cast
    }
    write_policy(output_dir, config, weights, processors=source.path)


def _acting_parts(source: Checkpoint, config: dict[str, Any], *, by_tokens: bool) -> nn.ModuleDict:
    """Backbone and expert as they act, without weights."""
    state = source.weights.get("expert.state_adaptor.0.weight")
    conditioning = source.expert_conditioning
    architecture = ExpertArchitecture(**config["built"]["expert"])
    with torch.device("meta"):
        backbone = GemBackbone(
            Qwen3VLConfig.from_dict(source.backbone_config),
            num_layers=None
            if by_tokens
            else kept_layers(config["expert"]["conditioning_layers"], conditioning),
            language_head=by_tokens,
            key_values=conditioning == "key_values",
        )
        expert = ActionExpert(
            architecture,
            conditioning_dim=architecture.key_value_dim
            if conditioning == "key_values"
            else backbone.hidden_size,
            action_dim=config["built"]["action_dim"],
            state_dim=None if state is None else state.shape[1],
            chunk_size=config["chunk_size"],
            conditioning=conditioning,
        )
    return nn.ModuleDict({"backbone": backbone, "expert": expert})


def _acting_weights(source: Checkpoint, parts: nn.ModuleDict) -> dict[str, StoredTensor]:
    backbone: Any = parts["backbone"]
    weights = {
        name: stored
        for name, stored in source.weights.items()
        if not name.startswith("generator.")
        and not (name.startswith("backbone.") and backbone.has_no_place_for(name.removeprefix("backbone.")))
    }
    check_weights(
        weights,
        {name: weight.shape for name, weight in parts.state_dict().items()},
        fault=f"The weights in {source.path} do not fit its config.json",
    )
    return weights


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
    built = config["built"] | {"generator": {}, "questions": "", "acts_alone": True}
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
        # An adapter's weights are merged.
        "use_peft": False,
        "pretrained_path": None,
        "built": built,
        **learned,
    }
