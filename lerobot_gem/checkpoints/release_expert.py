"""The release's action expert, to and from our names.

The action expert of the release (`RDTRunner`) interleaves keys and values in one matrix and abbreviates its names;
ours says what each weight is. The mapping is a bijection, written down once in `_EXPERT_NAMES` and `_BLOCK_NAMES`.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lerobot_gem.checkpoints.files import StoredTensor, abbreviated

_MLP_LAYERS = {"lang_adaptor": (0, 2), "act_adaptor": (0, 2, 4), "state_adaptor": (0, 2, 4)}
_MLP_NAMES = {
    "lang_adaptor": "conditioning_adaptor",
    "act_adaptor": "action_adaptor",
    "state_adaptor": "state_adaptor",
}

# Release name -> our name, outside the blocks. `state_adaptor` may be absent as a whole (no state input).
_EXPERT_NAMES = {
    "model.register_tokens": "register_tokens",
    "model.x_pos_emb": "position_embedding",
    "model.state_pos_emb": "state_embedding",
    "model.final_layer.ffn_norm.weight": "output.norm.weight",
    **{
        f"{release}.{suffix}": f"{ours}.{suffix}"
        for release, ours in {
            "model.t_embedder.mlp.0": "time_embedding.mlp.0",
            "model.t_embedder.mlp.2": "time_embedding.mlp.2",
            "model.final_layer.ffn.fc1": "output.hidden",
            "model.final_layer.ffn.fc2": "output.velocity",
            "model.final_layer.adaLN_modulation.1": "output.modulation",
            **{
                f"{name}.{layer}": f"{_MLP_NAMES[name]}.{layer}"
                for name, layers in _MLP_LAYERS.items()
                for layer in layers
            },
        }.items()
        for suffix in ("weight", "bias")
    },
}

# The same inside one block. A pair of our names stands for weights that the release interleaves row by row.
_BLOCK_NAMES: dict[str, str | tuple[str, str]] = {
    "attn_norm.weight": "self_attention_norm.weight",
    "cross_norm.weight": "cross_attention_norm.weight",
    "cond_norm.weight": "conditioning_norm.weight",
    "ffn_norm.weight": "feed_forward_norm.weight",
    "ffn.w1.weight": "feed_forward.gate.weight",
    "ffn.w2.weight": "feed_forward.down.weight",
    "ffn.w3.weight": "feed_forward.up.weight",
    "adaLN_modulation.1.weight": "modulation.weight",
    "adaLN_modulation.1.bias": "modulation.bias",
    **{
        f"{release}.{name}.weight": f"{ours}.{our_name}.weight"
        for release, ours in {"attn": "self_attention", "cross_attn": "cross_attention"}.items()
        for name, our_name in {
            "wq": "query",
            "wo": "output",
            "norm_q": "query_norm",
            "norm_k": "key_norm",
        }.items()
    },
    "attn.wkv.weight": ("self_attention.key.weight", "self_attention.value.weight"),
    "cross_attn.wkv.weight": ("cross_attention.key.weight", "cross_attention.value.weight"),
}

_RELEASED_BLOCK = re.compile(r"model\.blocks\.(\d+)\.")
_OUR_BLOCK = re.compile(r"blocks\.(\d+)\.")


def expert_from_release[AnyTensor: (Tensor, StoredTensor)](
    state_dict: Mapping[str, AnyTensor],
) -> dict[str, AnyTensor]:
    """Rename the weights of the release's action expert to those of `ActionExpert`.

    Works on anything keyed like a state dict: gradients, and tensors on disk, which are not read. Tensors are shared
    with the input where possible.

    Raises:
        ValueError: A weight is missing or unknown, or interleaved keys and values have an odd number of rows; the
            message names it.
    """
    names = _names(_depth(state_dict, _RELEASED_BLOCK), with_state=_has_state(state_dict))
    _check_names(state_dict, names, "the release's action expert")
    converted: dict[str, AnyTensor] = {}
    for released, ours in names.items():
        tensor = state_dict[released]
        if isinstance(ours, str):
            converted[ours] = tensor
        elif len(tensor) % 2:
            raise ValueError(
                f"{released} has {len(tensor)} rows; interleaved keys and values need an even number."
            )
        else:
            # wkv's output is viewed as (kv heads, head size, 2): even rows are keys, odd rows values.
            converted[ours[0]], converted[ours[1]] = tensor[0::2], tensor[1::2]
    return converted


def expert_to_release(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an `ActionExpert` to the release's names; the exact inverse of `expert_from_release`.

    Raises:
        ValueError: A weight is missing or unknown; the message names it.
    """
    names = _names(_depth(state_dict, _OUR_BLOCK), with_state=_has_state(state_dict))
    expected = [name for ours in names.values() for name in ((ours,) if isinstance(ours, str) else ours)]
    _check_names(state_dict, expected, "our action expert")
    return {
        released: state_dict[ours]
        if isinstance(ours, str)
        else torch.stack([state_dict[ours[0]], state_dict[ours[1]]], dim=1).flatten(0, 1)
        for released, ours in names.items()
    }


def _depth(names: Iterable[str], block: re.Pattern[str]) -> int:
    """Number of blocks by the highest index, so that a gap shows up as missing weights."""
    return max((int(match[1]) + 1 for name in names if (match := block.match(name))), default=1)


def _has_state(names: Iterable[str]) -> bool:
    return any(name.startswith("state_adaptor.") for name in names)


def _names(depth: int, *, with_state: bool) -> dict[str, str | tuple[str, str]]:
    """Release name -> our name or pair of names, for a whole expert."""
    names: dict[str, str | tuple[str, str]] = {
        released: ours
        for released, ours in _EXPERT_NAMES.items()
        if with_state or not released.startswith("state_adaptor.")
    }
    for index in range(depth):
        for released, ours in _BLOCK_NAMES.items():
            prefixed = (
                f"blocks.{index}.{ours}"
                if isinstance(ours, str)
                else (f"blocks.{index}.{ours[0]}", f"blocks.{index}.{ours[1]}")
            )
            names[f"model.blocks.{index}.{released}"] = prefixed
    return names


def _check_names(found: Iterable[str], expected: Iterable[str], owner: str) -> None:
    found, expected = set(found), set(expected)
    if found != expected:
        missing, unexpected = (
            ", ".join(abbreviated(names)) for names in (expected - found, found - expected)
        )
        raise ValueError(
            f"These are not the weights of {owner}: missing {missing or 'none'}; unexpected {unexpected or 'none'}."
        )
