"""What LoRA adapts and what it trains in full.

Low-rank adapters change pretrained weights. The action expert and the connector are new to the backbone, so they are trained
in full, and so is any part that starts from random weights. What the stage or the freeze flags freeze stays as it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from lerobot_gem.training.stages import PARTS, part_of

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
            "pretrained checkpoint for them (expert.pretrained, depth.pretrained, depth.autoencoder), or to train them."
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ValueError where PEFT could not make an adapter of LeRobot's `--peft` options.

    Args:
        options: By their names on the command line.
    """
    method = (options.get("method_type") or "LORA").upper()
    # LeRobot gives every method a rank.
    with_rank = sorted(
        kind.name
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if "r" in {field.name for field in fields(config)}
    )
    if method not in with_rank:
        raise ValueError(
            f"--peft.method_type={method}: expected a method of PEFT with a rank, one of {', '.join(with_rank)}."
        )
    rank = options.get("r")
    if rank is not None and rank < 1:
        raise ValueError(f"--peft.r={rank}: expected a rank of at least 1.")
    if options.get("init_type") in _UNSUPPORTED_STARTS:
        raise ValueError(
            f"--peft.init_type={options['init_type']} begins from {_UNSUPPORTED_STARTS[options['init_type']]}, which lerobot-train does "
            "not give: expected no --peft.init_type, or gaussian, orthogonal, pissa or olora."
        )


def check_saved(policy: nn.Module, random: Collection[str], in_full: Collection[str]) -> None:
    """Raise a ValueError if an adapter, as it was asked for by hand, would hold nothing of parts with random weights.

    Args:
        policy: One of ours.
        random: Parts whose weights are random.
        in_full: Modules that are trained and saved in full; PEFT knows them by the ends of their names.
    """
    lost = [
        path
        for part in sorted(random)
        for path in (prefix.removesuffix(".") for prefix in PARTS[part])
        if _has_module(policy, path)
        and not any(parent.endswith(tuple(in_full)) for parent in (path, path.partition(".")[0]))
    ]
    if lost:
        raise ValueError(
            f"--peft.full_training_modules={list(in_full)} leaves out {', '.join(lost)}, whose weights are random: they would be neither "
            "trained nor saved, and whoever loads the adapter would get others. Expected them in it, or no --peft.full_training_modules, "
            "or pretrained weights for them."
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
