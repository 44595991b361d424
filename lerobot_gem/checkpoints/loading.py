"""The backbone from an opened checkpoint of any format that holds one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import init_empty_weights
from transformers import Qwen3VLConfig
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints.files import load_weights
from lerobot_gem.checkpoints.formats import Checkpoint
from lerobot_gem.checkpoints.size_limit import SizeLimit
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.presets import ExpertConditioning


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules built within have shapes and no weights, which are on the meta device."""
    with no_init_weights(), init_empty_weights():
        yield


def kept_layers(layers: Sequence[int], conditioning: ExpertConditioning) -> int:
    """How many decoder layers a backbone keeps whole for an expert; it has one at least where it gives states.

    Args:
        layers: What the blocks read: state i is the input of layer i.
        conditioning: Whether they read states or keys and values.
    """
    return max(layers) if conditioning == "key_values" else max(1, *layers)


def load_backbone(
    checkpoint: Checkpoint,
    *,
    num_layers: int | None = None,
    language_head: bool = False,
    key_values: bool = False,
    dtype: torch.dtype = torch.float32,
    set_types: Callable[[GemBackbone], None] | None = None,
) -> GemBackbone:
    """Load Qwen3-VL, or the backbone of a checkpoint of GEM-2B's format or of our policies.

    Args:
        checkpoint: Where the weights are. Decoder layers past `num_layers`, a depth generator and a language head that
            is not asked for are skipped; any other weight without a place is an error.
        num_layers: Decoder layers to keep; None for all.
        language_head: Load the language head too.
        key_values: Load what gives keys and values of the layer behind `num_layers` too.
        dtype: Of the loaded weights.
        set_types: Gives some weights another type, before any is in memory.

    Raises:
        ValueError: No backbone in it, cut short, or a weight is missing, unexpected or mis-shaped; the message names it.
    """
    with without_weights(), SizeLimit(checkpoint.weights, str(checkpoint.path / "config.json")):
        config = Qwen3VLConfig.from_dict(checkpoint.backbone_config)
        backbone = GemBackbone(
            config, num_layers=num_layers, language_head=language_head, key_values=key_values
        ).to(dtype)
    if set_types is not None:
        set_types(backbone)
    weights = checkpoint.part("backbone")
    # The layers that its expert reads.
    may_be_cut = checkpoint.config.get("type") == "gem_vla"
    load_weights(
        backbone,
        {name: weight for name, weight in weights.items() if not backbone.has_no_place_for(name)},
        fault=f"The weights in {checkpoint.path} do not fit its config.json",
        remedy="A 'gem_vla' policy that was trained without depth, or converted to act, has only the layers that it acts with: expected the 'gem' "
        "checkpoint or Qwen3-VL that it began with."
        if may_be_cut
        else "",
        dtypes={},
    )
    return backbone
