"""What LoRA adapts and what it trains in full.

Low-rank adapters change pretrained weights. The action expert and the connector are new to the backbone, so they are trained
in full, and so is any part that starts from random weights. What the stage or the freeze flags freeze stays as it is.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from lerobot_gem.training.stages import PARTS, part_of

logger = logging.getLogger(__name__)

# Trained in full wherever they are trained.
NEW_PARTS = frozenset({"expert", "connector"})
# By PEFT's name, and what they read.
_UNSUPPORTED_STARTS = {"eva": "batches of data", "corda": "covariances of data", "loftq": "quantised weights"}


def lora_targets(policy: nn.Module, trainable: Collection[str], random: Collection[str]) -> dict[str, Any]:
    """The fields of PEFT's configuration that say which modules are adapted.

    Args:
        policy: One of ours.
        trainable: Parts that are trained (`stages.PARTS`).
        random: Parts whose weights are random.

    Returns:
        `target_modules`, all linear layers of the pretrained parts that are trained, and `modules_to_save`, what is trained in
        full.
    """
    linear = [
        name
        for name, module in policy.named_modules()
        if isinstance(module, nn.Linear) and part_of(f"{name}.weight") in set(trainable) - _in_full(random)
    ]
    in_full = [
        prefix.removesuffix(".")
        for part in sorted(_in_full(random) & set(trainable))
        for prefix in PARTS[part]
        if _has_module(policy, prefix.removesuffix("."))
    ]
    # The name by which PEFT knows an adapter that adapts no layer, such as that of stage 1.
    return {"target_modules": linear or DUMMY_TARGET_MODULES, "modules_to_save": in_full}


def check_adaptable(trainable: Collection[str], random: Collection[str]) -> None:
    """Raise a ValueError where an adapter could not be loaded again.

    An adapter holds what is trained; the rest comes from where the training started.

    Args:
        trainable: Parts that are trained.
        random: Parts whose weights are random.
    """
    if "language_model" in random:
        raise ValueError(
            "LoRA adapts pretrained weights, but the backbone's are random: expected --policy.backbone.pretrained=<Qwen3-VL, "
            "GEM-2B or gem checkpoint> or --policy.path=<checkpoint>. Train random weights in full, without --peft."
        )
    lost = sorted(set(random) - set(trainable))
    if lost:
        raise ValueError(
            f"The weights of {', '.join(lost)} are random and frozen, and an adapter holds trained weights alone: expected a "
            "pretrained checkpoint for them (expert.pretrained, depth.pretrained, depth.autoencoder), or to train them, or a whole policy that "
            "the adapter starts from (--policy.path)."
        )


def check_options(options: Mapping[str, Any], layers: Mapping[str, nn.Module]) -> None:
    """Raise a ValueError where LeRobot's `--peft` options make no adapter that learns, or one that can't be merged.

    Args:
        options: By their names on the command line.
        layers: The policy's modules by name.
    """
    method = (options.get("method_type") or "LORA").upper()
    if method != "LORA":
        raise ValueError(
            f"--peft.method_type={method}: expected LORA, whose adapters can be merged and shared."
        )
    widest = max(max(layer.weight.shape) for layer in layers.values() if isinstance(layer, nn.Linear))
    rank, alpha, start = (options.get(name) for name in ("r", "lora_alpha", "init_type"))
    if rank is not None and not 1 <= rank <= widest:
        raise ValueError(
            f"--peft.r={rank}: expected a rank from 1 to {widest}, the longest side of the policy's weights."
        )
    if alpha is not None and not alpha > 0:
        raise ValueError(
            f"--peft.lora_alpha={alpha}: expected more than 0, which adapters are multiplied by."
        )
    if start in _UNSUPPORTED_STARTS:
        raise ValueError(
            f"--peft.init_type={start} begins from {_UNSUPPORTED_STARTS[start]}, which lerobot-train does not give: expected no "
            "--peft.init_type, or gaussian, orthogonal, pissa or olora."
        )
    targets = options.get("target_modules")
    if isinstance(targets, list):
        unknown = [name for name in targets if not any(f".{layer}".endswith(f".{name}") for layer in layers)]
        if unknown:
            linear = sorted(
                {name.rpartition(".")[2] for name, layer in layers.items() if isinstance(layer, nn.Linear)}
            )
            raise ValueError(
                f"--peft.target_modules has {unknown}, which no module of the policy is called: expected ends of names, such as "
                f"{', '.join(linear)}, or no --peft.target_modules."
            )


def log_adapters(adapted: nn.Module) -> None:
    """Say what is trained: adapters, of how many layers, and what in full.

    Args:
        adapted: What PEFT made of a policy.
    """
    layers, adapters, in_full = 0, 0, dict[str, int]()
    for name, weight in adapted.named_parameters():
        if not weight.requires_grad:
            continue
        if ".lora_" in name:
            layers += ".lora_A." in name
            adapters += weight.numel()
        else:
            part = part_of(name.removeprefix("base_model.model."))
            in_full[part] = in_full.get(part, 0) + weight.numel()
    said = [f"{part} ({size / 1e6:.2f} M)" for part, size in in_full.items()]
    logger.info(
        f"LoRA: {adapters / 1e6:.2f} M parameters of adapters in {layers} layers, which are otherwise frozen; trained in full: "
        f"{', '.join(said) or 'nothing'}"
    )
    if not layers:
        logger.warning(
            "LoRA adapts no layer, since the parts that it would adapt are frozen: the same trains without --peft."
        )


def check_saved(
    policy: nn.Module, random: Collection[str], new_rows: Collection[str], in_full: Collection[str]
) -> None:
    """Raise a ValueError if an adapter, as it was asked for by hand, would hold nothing of random weights.

    Args:
        policy: One of ours.
        random: Parts whose weights are random.
        new_rows: Layers of the policy that have random rows, of tokens that are new.
        in_full: Modules that are trained and saved in full; PEFT knows them by the ends of their names.
    """
    of_parts = [prefix.removesuffix(".") for part in sorted(random) for prefix in PARTS[part]]
    lost = [
        path
        for path in (*of_parts, *new_rows)
        if _has_module(policy, path)
        and not any(parent.endswith(tuple(in_full)) for parent in (path, path.partition(".")[0]))
    ]
    if lost:
        raise ValueError(
            f"--peft.full_training_modules={list(in_full)} leaves out {', '.join(lost)}, whose weights are random: they would be neither "
            "trained nor saved, and whoever loads the adapter would get others. Expected them in it, or no --peft.full_training_modules, "
            "or pretrained weights for them."
        )


def check_not_frozen(policy: nn.Module, trainable: Collection[str], in_full: Collection[str]) -> None:
    """Raise a ValueError if modules are to be trained in full of parts that are frozen.

    Args:
        policy: One of ours.
        trainable: Parts that are trained.
        in_full: Modules that are trained and saved in full; PEFT knows them by the ends of their names.
    """
    ends = tuple(f".{name}" for name in in_full)
    parts = {
        part_of(f"{name}.{weight}")
        for name, module in policy.named_modules()
        if f".{name}".endswith(ends)
        for weight, _ in module.named_parameters()
    }
    frozen = sorted(parts - set(trainable))
    if frozen:
        raise ValueError(
            f"--peft.full_training_modules={list(in_full)} would train {', '.join(frozen)}, which the policy's options freeze: expected other "
            "modules, or no such option (expert.freeze, backbone.freeze_…)."
        )


def drop_originals(adapted: nn.Module) -> None:
    """Forget the originals of what is trained in full: PEFT trains a copy, and keeps them for a return, as much memory again.

    Args:
        adapted: A policy with adapters, or what PEFT made of it.
    """
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.original_module = nn.Identity()


def _in_full(random: Collection[str]) -> frozenset[str]:
    return NEW_PARTS | frozenset(random)


def _has_module(policy: nn.Module, name: str) -> bool:
    try:
        policy.get_submodule(name)
    except AttributeError:
        return False
    return True
