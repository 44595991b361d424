"""Our checkpoints and released ones, written in formats that other software reads.

| format | for | holds |
|---|---|---|
| `qwen3-vl` | `AutoModelForImageTextToText`, vLLM, evaluation suites | the backbone with its language head |
| `gem-2b` | the official release | the same, and the depth generator |
| `rdt` | the official release's `RDTRunner` | the action expert |
| `policy` | this plugin | a `gem` or `gem_vla` policy whose adapter is merged |
| `acting` | this plugin, on robots | what of a `gem_vla` policy acts, in the type that it computes in (`acting.py`) |

But for `acting`, weights keep their type and bits, so converting there and back gives the same tensors.
"""

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lerobot_gem.checkpoints.acting import write_acting
from lerobot_gem.checkpoints.adapters import CONFIG_FILE as ADAPTER_CONFIG, is_adapter
from lerobot_gem.checkpoints.files import StoredTensor, check_weights, write_policy, write_weights
from lerobot_gem.checkpoints.formats import (
    GEM_2B_PREFIXES,
    SANA_FOLDERS,
    Checkpoint,
    open_checkpoint,
    read_sana_architecture,
)
from lerobot_gem.checkpoints.processor_files import check_processor_files, write_processor_files
from lerobot_gem.checkpoints.release_expert import expert_to_release
from lerobot_gem.checkpoints.size_limit import SizeLimit
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import DepthArchitecture, get_preset

FORMATS = ("qwen3-vl", "gem-2b", "rdt", "policy", "acting")

# The class that config.json names, by format.
_ARCHITECTURES = {"qwen3-vl": "Qwen3VLForConditionalGeneration", "gem-2b": "GEMForConditionalGeneration"}

# Formats whose weights may be in several files, and the largest size of one in 10^9 bytes.
_SHARDED, _SHARD_GB = tuple(_ARCHITECTURES), 5.0

# What a Qwen3-VL folder holds beside config.json and weights.
_OTHER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)


@dataclass
class SourceCheckpoint:
    """The checkpoint to convert: `--policy.*`.

    Attributes:
        path: Hub id or folder: a `gem` or `gem_vla` policy (its `pretrained_model`, an adapter too), GEM-2B's format, or Qwen3-VL;
            for "rdt" and "acting" a `gem_vla` policy; for "policy" an adapter.
        revision: Branch, tag or commit of a Hub id, not of a folder; None for the newest.
    """

    path: str
    revision: str | None = None


@dataclass
class ConvertConfig:
    """What to convert.

    Attributes:
        policy: The checkpoint to convert.
        output_dir: Folder to write; absent or empty.
        format: "qwen3-vl", "gem-2b", "rdt", "policy" or "acting".
        sana: Hub id or folder of the SANA pipeline whose configurations describe the source's depth generator. None:
            those that come with the source, or SANA 1.5 1.6B's, which the released GEM-2B has. For "gem-2b" alone.
        max_shard_gb: Largest size of one file of weights, in 10^9 bytes; None is 5. For "qwen3-vl" and "gem-2b": in other formats,
            the weights are one file, whatever its size.
    """

    policy: SourceCheckpoint
    output_dir: Path
    format: str = "qwen3-vl"
    sana: str | None = None
    max_shard_gb: float | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(
                f"format={self.format!r} is unknown: expected one of {', '.join(map(repr, FORMATS))}."
            )
        if self.sana is not None and self.format != "gem-2b":
            raise ValueError(
                f"sana={self.sana!r} has no effect with format={self.format!r}: it describes the depth generator for 'gem-2b' alone. Leave "
                "it out, or convert with --format=gem-2b."
            )
        if self.max_shard_gb is None:
            return
        if self.format not in _SHARDED:
            raise ValueError(
                f"max_shard_gb={self.max_shard_gb} has no effect with format={self.format!r}, whose weights are always one file: leave it "
                f"out. It is for {' and '.join(map(repr, _SHARDED))}."
            )
        if not 0 < self.max_shard_gb < math.inf:
            raise ValueError(
                f"max_shard_gb={self.max_shard_gb}: expected a finite number above 0 ({_SHARD_GB:g} by default)."
            )


def convert(config: ConvertConfig) -> Checkpoint:
    """Write a checkpoint in another format; no more than one file of weights is in memory.

    Args:
        config: What to convert. Files in `output_dir` that have the same names are replaced.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: There is no such source, or shards of it or a policy's processors are missing.
        ValueError: The source can't be read, lacks a part that the format needs, or its weights don't fit its
            configuration; the message names them. Or it is a folder with a revision, or a policy's processors could run code or
            read other files. Nothing was written then.
    """
    source = _open(config.policy)
    if source.format == "policy":
        check_processor_files(source.path)
    if config.format == "rdt":
        _write_expert(source, config.output_dir)
    elif config.format == "policy":
        _write_policy(source, config.output_dir)
    elif config.format == "acting":
        write_acting(source, config.output_dir)
    else:
        _write_language_model(source, config)
    return open_checkpoint(config.output_dir)


def _open(source: SourceCheckpoint) -> Checkpoint:
    if source.revision is not None and Path(source.path).exists():
        raise ValueError(
            f"policy.revision={source.revision!r} has no effect, since policy.path={source.path} is on this machine: leave it out, or name a Hub "
            "id that is no path here."
        )
    return open_checkpoint(source.path, revision=source.revision)


def _write_policy(source: Checkpoint, output_dir: Path) -> None:
    """Write the whole policy of an adapter, as LeRobot saves policies: weights in one file."""
    if source.format != "policy" or not is_adapter(source.path):
        raise ValueError(
            f"{source.path} is no adapter of a gem or gem_vla policy: expected a folder with {ADAPTER_CONFIG}, which "
            "lerobot-train --peft.method_type=LORA writes."
        )
    config = source.config | {"use_peft": False, "pretrained_path": None}
    write_policy(output_dir, config, source.weights, processors=source.path)


def _write_expert(source: Checkpoint, output_dir: Path) -> None:
    source.check_expert()
    if source.expert_conditioning == "key_values":
        raise ValueError(
            f"The expert in {source.path} reads keys and values (expert.conditioning='key_values') and has no weights that project "
            "states, which the release's format holds: expected an expert that was trained with expert.conditioning='states'. "
            "--format=acting writes what acts, for this plugin."
        )
    expert = expert_to_release({name: stored.read() for name, stored in source.part("expert").items()})
    output_dir.mkdir(parents=True, exist_ok=True)
    save_file(expert, output_dir / "model.safetensors", metadata={"format": "pt"})


def _write_language_model(source: Checkpoint, config: ConvertConfig) -> None:
    """Write Qwen3-VL, with the depth generator if the format has one."""
    weights = source.part("backbone")
    _check_backbone(source, weights)
    weights = {f"backbone.{name}": stored for name, stored in weights.items()}
    if config.format == "gem-2b":
        architecture = read_sana_architecture(config.sana) if config.sana else source.depth_architecture
        generator = source.part("generator")
        _check_generator(source, generator, architecture)
        weights |= {f"generator.{name}": stored for name, stored in generator.items()}

    output_dir = config.output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    if source.format == "policy":
        write_processor_files(source, output_dir)
    else:
        for name in _OTHER_FILES:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, output_dir / name)
    values = _vlm_config(source) | {"architectures": [_ARCHITECTURES[config.format]]}
    _write_json(output_dir / "config.json", values)
    if config.format == "gem-2b":
        write_sana_configs(output_dir, architecture)
    largest = config.max_shard_gb or _SHARD_GB
    write_weights(output_dir, _gem_2b_names(weights), max_shard_bytes=int(largest * 1e9))


def _check_backbone(source: Checkpoint, weights: Mapping[str, StoredTensor]) -> None:
    config = Qwen3VLConfig.from_dict(source.backbone_config)
    with torch.device("meta"), SizeLimit(weights, str(source.path / "config.json")):
        expected = Qwen3VLForConditionalGeneration(config).state_dict()
    if config.tie_word_embeddings and "lm_head.weight" not in weights:
        del expected["lm_head.weight"]
    check_weights(
        weights,
        {name: tensor.shape for name, tensor in expected.items()},
        fault=f"The backbone in {source.path} can't be converted",
        remedy="A gem_vla policy trained without depth keeps the decoder layers that its expert reads, no more: convert "
        "the checkpoint that its backbone came from. Otherwise, use the config.json saved with the weights.",
    )


def _check_generator(
    source: Checkpoint, weights: Mapping[str, StoredTensor], architecture: DepthArchitecture
) -> None:
    width = Qwen3VLConfig.from_dict(source.backbone_config).get_text_config().hidden_size
    # The source's own sizes are bounded by its weights; those that a released GEM-2B leaves to us need not be.
    is_ours = architecture == get_preset("2b").depth
    limit = nullcontext() if is_ours else SizeLimit(weights, str(source.path / "config.json"))
    with torch.device("meta"), limit:
        expected = DepthGenerator(architecture, width).state_dict()
    check_weights(
        weights,
        {name: tensor.shape for name, tensor in expected.items()},
        fault=f"The depth generator in {source.path} can't be converted",
        remedy="If it is not SANA 1.5 1.6B, name the SANA pipeline that it was made from (--sana=folder or Hub id).",
    )


def _gem_2b_names(weights: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    renamed = {}
    for name, stored in weights.items():
        [(theirs, ours)] = [pair for pair in GEM_2B_PREFIXES.items() if name.startswith(pair[1])]
        renamed[theirs + name.removeprefix(ours)] = stored
    return renamed


def _vlm_config(source: Checkpoint) -> dict[str, Any]:
    """The config.json of Qwen3-VL, with the field names of transformers 4.57, which version 5 reads too."""
    if source.format != "policy":
        return source.config
    config = Qwen3VLConfig.from_dict(source.backbone_config)
    values: dict[str, Any] = config.to_diff_dict()
    rope = dict(values["text_config"].pop("rope_parameters"))
    values["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    dtype = source.weights["backbone.model.language_model.embed_tokens.weight"].dtype
    return values | {
        "dtype": str(dtype).removeprefix("torch."),
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def write_sana_configs(output_dir: Path, architecture: DepthArchitecture) -> None:
    """Write the generator's configurations, which the release's format lacks, as a SANA pipeline keeps them."""
    parts = {"transformer": architecture.transformer, "vae": architecture.autoencoder}
    for folder, (_, class_name) in SANA_FOLDERS.items():
        _write_json(output_dir / folder / "config.json", {"_class_name": class_name, **parts[folder]})
    _write_json(
        output_dir / "scheduler" / "scheduler_config.json",
        {"_class_name": "FlowMatchEulerDiscreteScheduler", **architecture.scheduler},
    )


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
