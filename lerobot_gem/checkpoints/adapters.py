"""LoRA's adapters: a policy's weights, merged with those of the checkpoint that it was trained on.

A folder that `lerobot-train --peft.method_type=LORA` wrote holds low-rank matrices for the layers that it adapted, and the parts
that were trained in full. Everything else stays where training started (`base_model_name_or_path`). Merged, both are
the weights of one policy: W + scale * up @ down, computed in the wider of both types when a tensor is read.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lerobot_gem.checkpoints.files import StoredTensor, abbreviated, fingerprint, stored_weights

CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."
_INITS_THAT_KEEP_THE_BASE = ("gaussian", "orthogonal")
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, kw_only=True)
class MergedTensor(StoredTensor):
    """The weight (out, in) of a layer with its adapter; not in memory yet.

    Args:
        base: The weight without it.
        down: (r, in).
        up: (out, r).
        scale: Of the product.
    """

    base: StoredTensor
    down: StoredTensor
    up: StoredTensor
    scale: float

    @property
    def files(self) -> frozenset[Path]:
        return self.base.files | self.down.files | self.up.files

    def read(self) -> Tensor:
        base, up, down = (part.read().to(self.dtype) for part in (self.base, self.up, self.down))
        return (base + self.scale * (up @ down))[self.rows]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a whole policy."""
    return (folder / CONFIG_FILE).is_file()


def check_whole(pretrained: str | Path, given: str, *, use_peft: bool) -> None:
    """Refuse an adapter where a whole policy is needed.

    Args:
        pretrained: Folder or Hub id.
        given: What names it, for the message: "distillation.teacher='outputs/lora'".
        use_peft: What its config.json says, which decides on the Hub. In a folder the files do: a policy that PEFT merged says so too.

    Raises:
        ValueError: It is an adapter.
    """
    folder = Path(pretrained)
    if is_adapter(folder) or (use_peft and not folder.is_dir()):
        raise ValueError(
            f"{given} is an adapter: expected a whole policy here. Merge it (lerobot-gem-convert --format=acting to act, --format=policy "
            "for anything else)."
        )


@contextmanager
def needing_base(adapter: str | Path, base: str | Path) -> Iterator[None]:
    """Name the adapter where its base is not there.

    Args:
        adapter: Folder or Hub id.
        base: What it names as its base: folder or Hub id.

    Raises:
        FileNotFoundError: The base is not there.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{adapter} is an adapter of {str(base)!r}, which it needs: expected the checkpoint that it was trained on. If it was moved, "
            f"write its place in the adapter's {CONFIG_FILE} (base_model_name_or_path) and, if it is named there too, config.json "
            f"(backbone.pretrained). {error}"
        ) from error


def merged(
    folder: Path, config: Mapping[str, Any], base: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """The weights of an adapter's policy; none is read.

    Args:
        folder: Of the adapter.
        config: The content of its `adapter_config.json`.
        base: The weights that it was trained on, under our names.

    Returns:
        Under our names: those of `base`, adapted or replaced.

    Raises:
        FileNotFoundError: The adapter's weights are missing.
        ValueError: It does not fit `base`, or adapts other layers than linear ones.
    """
    stored = stored_weights(folder, stem="adapter_model")
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}
    _check_linear(folder, weights)
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    layers = {name.removesuffix(_DOWN) for name in weights if name.endswith(_DOWN)}
    adapted, faults = {}, []
    for layer in layers:
        name, down, up = f"{layer}.weight", weights.pop(layer + _DOWN), weights.pop(layer + _UP, None)
        if up is None or name not in base or base[name].shape != (up.shape[0], down.shape[1]):
            faults.append(layer)
            continue
        adapted[name] = MergedTensor(
            file=base[name].file,
            name=base[name].name,
            shape=base[name].shape,
            dtype=torch.promote_types(base[name].dtype, down.dtype),
            base=base[name],
            down=down,
            up=up,
            scale=scale,
        )
    faults += [name for name in weights if ".lora_" in name]
    if faults:
        raise ValueError(
            f"The adapter {folder} does not fit {config['base_model_name_or_path']!r}, which it names as its base: "
            f"{', '.join(abbreviated(faults))}. Expected the checkpoint that it was trained on."
        )
    return {**base, **adapted, **weights}


def _check_linear(folder: Path, weights: Mapping[str, StoredTensor]) -> None:
    """Raise a ValueError if something else than linear layers is adapted: PEFT multiplies their matrices in other ways."""
    others = {name.partition(".lora_")[0] for name in weights if ".lora_embedding_" in name}
    others |= {
        name.removesuffix(_DOWN)
        for name, down in weights.items()
        if name.endswith(_DOWN) and len(down.shape) != 2
    }
    if others:
        raise ValueError(
            f"{folder} adapts embeddings or convolutions, {', '.join(abbreviated(others))}, which can't be merged here: expected adapters "
            "of linear layers (train without them in --peft.target_modules). LeRobot's commands load it as it is; merge it with PEFT "
            "(merge_and_unload)."
        )


def check_base(
    adapter: str | Path, recorded: str, base: str | Path, weights: Mapping[str, StoredTensor]
) -> None:
    """Raise a ValueError if an adapter's base holds other weights than those that the adapter was trained on.

    Args:
        adapter: Where it is.
        recorded: The fingerprint of its base when it was trained; empty for an adapter that was written before there was one.
        base: What it names as its base.
        weights: Of `base`.
    """
    if recorded and (found := fingerprint(weights)) != recorded:
        raise ValueError(
            f"{base} has other weights than those that the adapter {adapter} was trained on (fingerprint {found[:12]}, expected "
            f"{recorded[:12]}): it would act in a way that nobody trained. Put the base back as it was, name it in "
            f"base_model_name_or_path of the adapter's {CONFIG_FILE} if it is elsewhere (with its revision, if that is on the Hub), or "
            "train the adapter again."
        )


def check_numbers(file: str | Path, config: Mapping[str, Any]) -> None:
    """Raise a ValueError if an adapter's numbers are none.

    Args:
        file: Its `adapter_config.json`, for messages.
        config: The content.
    """
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise ValueError(
            f"{file} asks for rank {str(rank)[:80]} (r): expected a whole number, at least 1. Copy or download the adapter again."
        )
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(
            f"{file} has lora_alpha={str(alpha)[:80]}: expected a number. Copy or download the adapter again."
        )


def check_plain(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise a ValueError for an adapter that is not plain LoRA, or names no base; arguments are `merged`'s."""
    other = {
        name: config[name]
        for name, plain in {
            "peft_type": "LORA",
            "use_dora": False,
            "bias": "none",
            "fan_in_fan_out": False,
            "rank_pattern": {},
            "alpha_pattern": {},
        }.items()
        if config.get(name, plain) != plain
    }
    # Others (pissa, olora, ...) change the base's weights before training, and the base in its folder stays as it was.
    if config.get("init_lora_weights", True) not in (True, False, *_INITS_THAT_KEEP_THE_BASE):
        other["init_lora_weights"] = config["init_lora_weights"]
    if other:
        raise ValueError(
            f"{folder} has the adapter settings {other}, which can't be merged here: expected plain LoRA "
            "(--peft.method_type=LORA). LeRobot's commands load it as it is; merge it with PEFT (merge_and_unload)."
        )
    check_numbers(folder / CONFIG_FILE, config)
    base = config.get("base_model_name_or_path")
    if not (isinstance(base, str) and base):
        raise ValueError(
            f"{folder / CONFIG_FILE} names no base (base_model_name_or_path): expected the checkpoint that the adapter was "
            "trained on."
        )
