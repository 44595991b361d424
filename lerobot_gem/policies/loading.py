"""What is looked at before a checkpoint's weights are loaded into a policy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from lerobot.configs import PreTrainedConfig

from lerobot_gem.checkpoints.adapter_files import check_adapter_files
from lerobot_gem.checkpoints.adapters import check_whole
from lerobot_gem.checkpoints.files import StoredTensor, check_no_run, stored_policy_weights
from lerobot_gem.checkpoints.formats import built_from, looked_for, starting_weights
from lerobot_gem.checkpoints.processor_files import check_processor_files
from lerobot_gem.checkpoints.size_limit import SizeLimit

# Where on the Hub a checkpoint is; not `force_download`, which would fetch the weights again for each other file.
HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only")


def why_no_actions(preset: str, checkpoint: str | Path = "<this checkpoint>") -> str:
    """Why a `gem` policy does not act, and how to go on to one that does.

    Args:
        preset: Of the policy.
        checkpoint: Its folder or Hub id, where it is known.
    """
    return (
        "A `gem` policy is pre-trained to see and to answer, not to act. Train an action policy on it (stage 4): "
        f"lerobot-train --policy.type=gem_vla --policy.preset={preset!s:.80} --policy.backbone.pretrained={checkpoint} "
        "--dataset.repo_id=<demonstrations>"
    )


def check_type(pretrained: str | Path, expected: str, hub_arguments: Mapping[str, Any]) -> None:
    """Look whether a checkpoint is there, and of the type of policy that is to be built of it.

    Args:
        pretrained: Hub id or folder.
        expected: The type.
        hub_arguments: Some of `HUB_ARGUMENTS`.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It is of another type, or an adapter, or its config.json was damaged.
    """
    check_no_run(pretrained)
    file = _file(pretrained, CONFIG_NAME, hub_arguments)
    if not file.is_file():
        raise FileNotFoundError(
            f"{pretrained} has no {CONFIG_NAME}: expected the folder of a checkpoint (its pretrained_model). Copy or download all of its files."
        )
    with built_from(f"{pretrained}/{CONFIG_NAME}"):
        values = json.loads(file.read_text())
        found, preset, use_peft = (values.get(name) for name in ("type", "preset", "use_peft"))
    check_whole(pretrained, str(pretrained), use_peft=bool(use_peft))
    if (found, expected) == ("gem", "gem_vla"):
        raise ValueError(why_no_actions(preset, pretrained))
    if found != expected:
        raise ValueError(
            f"{pretrained} is a {found!r:.80} checkpoint: expected {expected!r}. Name another one."
        )


def check_adapter(config: Any) -> None:
    """Look at the folder of an adapter, which has processors of its own; other configurations pass.

    Args:
        config: Of the policy that is loaded.

    Raises:
        ValueError: A file of the adapter could run code, or it was trained in another stage than the configuration's.
    """
    if not (config.use_peft and config.pretrained_path):
        return
    check_adapter_files(config.pretrained_path, revision=config.pretrained_revision)
    check_processor_files(config.pretrained_path, revision=config.pretrained_revision)
    with built_from(f"{config.pretrained_path}/{CONFIG_NAME}"):
        trained: Any = PreTrainedConfig.from_pretrained(
            config.pretrained_path, revision=config.pretrained_revision
        )
    if trained.current_stage != config.current_stage:
        raise ValueError(
            f"stage={config.current_stage!r}, but --policy.path={config.pretrained_path} is an adapter of another stage, "
            f"{trained.current_stage!r}, which trained other layers: merge it first (lerobot-gem-convert --format=policy), and go on "
            "from the whole policy."
        )


def began_new(config: Any, base: str | Path) -> bool:
    """Whether a configuration is that of an adapter that was trained on a new policy: its base is then no policy yet.

    Args:
        config: Of the policy that is loaded; None for a checkpoint's own.
        base: What the adapter names as its base.
    """
    return config is not None and config.use_peft and str(base) == config.backbone.pretrained


def recall_images(config: Any, pretrained: str | Path, hub_arguments: Mapping[str, Any]) -> None:
    """Take over how a checkpoint's images were made, which its configuration may say otherwise by the command line.

    Args:
        config: Of the policy that is loaded. Version 0.1 did not write it there.
        pretrained: Hub id or folder.
        hub_arguments: Some of `HUB_ARGUMENTS`.
    """
    stored: Any = PreTrainedConfig.from_pretrained(pretrained, **hub_arguments)
    config.built.images = stored.built.images


def size_limit(pretrained: str | Path, hub_arguments: Mapping[str, Any]) -> SizeLimit:
    """The limit that a checkpoint's weights set to the sizes its configuration may ask for.

    Args:
        pretrained: Hub id or folder.
        hub_arguments: Some of `HUB_ARGUMENTS`.
    """
    return SizeLimit(_policy_weights(pretrained, hub_arguments), f"{pretrained}/{CONFIG_NAME}")


def base_weights(
    config: Any, base: str | Path, hub_arguments: Mapping[str, Any]
) -> Mapping[str, StoredTensor]:
    """The weights that an adapter changes; none is read.

    Args:
        config: Of the policy.
        base: What the adapter names as its base: a policy, or where a new one got its backbone.
        hub_arguments: Some of `HUB_ARGUMENTS`.
    """
    if not began_new(config, base):
        return _policy_weights(base, hub_arguments)
    sources = config.sources
    return starting_weights(sources.backbone, sources.generator, sources.expert)


def _policy_weights(pretrained: str | Path, hub_arguments: Mapping[str, Any]) -> dict[str, StoredTensor]:
    return stored_policy_weights(_file(pretrained, SAFETENSORS_SINGLE_FILE, hub_arguments))


def _file(pretrained: str | Path, name: str, hub_arguments: Mapping[str, Any]) -> Path:
    """A file of a checkpoint; in a folder it may be missing."""
    if Path(pretrained).is_dir():
        return Path(pretrained) / name
    with looked_for(pretrained):
        return Path(hf_hub_download(str(pretrained), name, **hub_arguments))
