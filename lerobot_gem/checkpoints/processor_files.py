"""Tokenizer, image processor and chat template that come with a checkpoint.

A policy keeps them as the configuration and state of its prompt step, other checkpoints as the files that transformers'
AutoProcessor reads.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from lerobot_gem.checkpoints.files import stored_weights
from lerobot_gem.checkpoints.formats import Checkpoint, built_from, read_json
from lerobot_gem.processing.steps import PromptStep
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer

_PIPELINE = f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"
_PIPELINES = (_PIPELINE, f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json")
# The name that processing/steps.py registers.
_PROMPT_STEP = "gem_prompt"
# Steps of LeRobot's, by their registered names, that do what they are told to tensors and load nothing. Others may: the
# `action_tokenizer_processor` runs code of the repository that its configuration names.
_HARMLESS = {
    "absolute_actions_processor",
    "device_processor",
    "normalizer_processor",
    "relative_actions_processor",
    "rename_observations_processor",
    "to_batch_processor",
    "unnormalizer_processor",
}
_OURS = "gem_"
_MOST_STEPS = 100

# What processing/chat.py writes, for messages whose content is text or a list of parts.
_CHAT_TEMPLATE = r"""
{%- for message in messages -%}
  {{- '<|im_start|>' ~ message.role ~ '\n' -}}
  {%- if message.content is string -%}
    {{- message.content -}}
  {%- else -%}
    {%- for part in message.content -%}
      {%- if 'image' in part.type -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif 'video' in part.type -%}
        {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
      {%- else -%}
        {{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


def load_tokenizer(checkpoint: Checkpoint | None) -> Any:
    """The tokenizer that comes with a backbone.

    Args:
        checkpoint: Of Qwen3-VL, GEM-2B or a policy of ours. None is a backbone made from scratch, with the `tiny`
            preset's tokenizer.

    Raises:
        FileNotFoundError: The checkpoint has no tokenizer.
        ValueError: A policy's preprocessor can't be read.
    """
    if checkpoint is None:
        return build_tiny_tokenizer()
    if checkpoint.format == "policy":
        return _prompt_step(checkpoint).tokenizer
    # Without any of these, transformers 5 makes an empty tokenizer instead of raising an error.
    if not any((checkpoint.path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise FileNotFoundError(
            f"No tokenizer in {checkpoint.path}: expected tokenizer.json, or vocab.json and merges.txt. Copy the "
            "tokenizer's files there from the model that the backbone came from."
        )
    return AutoTokenizer.from_pretrained(checkpoint.path, trust_remote_code=False)


def check_processor_files(pretrained: str | Path, **hub_kwargs: Any) -> None:
    """Refuse a policy whose processors could run code or read other files, or make other images than it was built for.

    LeRobot's loader sees them afterwards.

    Args:
        pretrained: Hub id or folder of a policy, or of an adapter.
        **hub_kwargs: `revision`, `cache_dir`, `local_files_only` and the like.

    Raises:
        ValueError: A step is named by the path of a class or is not one of those known to be harmless, or its state is
            outside the folder; or a file is cut short. Or the prompt step makes other images than config.json says.
    """
    for name in _PIPELINES:
        file = _file_of(pretrained, name, **hub_kwargs)
        if file is None:
            continue
        steps = _read_steps(file)
        if name == _PIPELINE:
            config = _file_of(pretrained, constants.CONFIG_NAME, **hub_kwargs)
            if config is not None:
                _check_images(file, steps, config)


def _file_of(pretrained: str | Path, name: str, **hub_kwargs: Any) -> Path | None:
    """A file of a checkpoint, None where it has none of this name."""
    if Path(pretrained).is_dir():
        file = Path(pretrained) / name
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(str(pretrained), name, **hub_kwargs))
    except EntryNotFoundError as error:
        # Offline, LeRobot's loader will not find it either; else it might the next moment.
        is_offline = constants.HF_HUB_OFFLINE or hub_kwargs.get("local_files_only")
        if isinstance(error, FileNotFoundError) and not is_offline:
            raise
        return None


def _check_images(pipeline: Path, steps: Sequence[Mapping[str, Any]], config: Path) -> None:
    """Raise a ValueError if the prompt step makes other images than the policy was built for."""
    with built_from(config):
        # Version 0.1 did not write it there.
        built = read_json(config).get("built", {}).get("images", {}).items()
    for step in steps:
        if step["registry_name"] != _PROMPT_STEP:
            continue
        with built_from(pipeline):
            made = step["config"]
            differing = [
                f"{name} {made.get(name)!r}, not {value!r}"
                for name, value in built
                if made.get(name) != value
            ]
        if differing:
            raise ValueError(
                f"{pipeline} makes other images than {config} says that the policy was built for ({'; '.join(differing)}): expected both files of "
                "one checkpoint. Copy or download it again."
            )


def _read_steps(file: Path) -> list[Mapping[str, Any]]:
    """The steps of a saved pipeline, each harmless by its name.

    Raises:
        ValueError: One is not, or the file can't be read.
    """
    steps = read_json(file).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"{file} is no saved pipeline: expected a list 'steps' of objects. Copy it again.")
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"{file} has {len(steps)} steps: expected at most {_MOST_STEPS}. Copy it again.")
    for step in steps:
        name = step.get("registry_name")
        if not isinstance(name, str):
            raise ValueError(
                f"{file} names a step by the path of a class ({step.get('class')!r}), which LeRobot would import and call: "
                "expected registered names. Do not load this checkpoint unless you wrote it; then register the step "
                "(ProcessorStepRegistry), and build the pipeline in Python."
            )
        if name not in _HARMLESS and not name.startswith(_OURS):
            raise ValueError(
                f"{file} has the step {name!r}: expected steps of this package or those of {', '.join(sorted(_HARMLESS))}, since "
                "others may run code that their configuration names. Load a pipeline of your own in Python."
            )
        state = step.get("state_file", "")
        if not isinstance(state, str) or state != Path(state).name or "\\" in state:
            raise ValueError(
                f"{file} has the state of step {name!r} in {state!r}: expected the name of a file beside it. Do not load this "
                "checkpoint."
            )
    return steps


def write_processor_files(policy: Checkpoint, output_dir: Path) -> None:
    """Write what AutoProcessor and `generate` need beside the weights.

    Args:
        policy: Checkpoint of a policy of ours, processors included.
        output_dir: Folder to write to.

    Raises:
        FileNotFoundError: The checkpoint lacks its processors.
        ValueError: They can't be read.
    """
    step = _prompt_step(policy)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=step.tokenizer.backend_tokenizer,
        pad_token=step.tokenizer.pad_token,
        eos_token="<|im_end|>",
        chat_template=_CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(output_dir)
    _name_tokenizer_class(output_dir / "tokenizer_config.json")
    images = step.images
    patches = {
        "patch_size": images.patch_size,
        "temporal_patch_size": images.temporal_patch_size,
        "merge_size": images.merge_size,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    size = {"shortest_edge": images.min_pixels, "longest_edge": images.max_pixels}
    Qwen2VLImageProcessor(**patches, size=size).save_pretrained(output_dir)
    Qwen3VLVideoProcessor(**patches).save_pretrained(output_dir)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(output_dir)


def _prompt_step(policy: Checkpoint) -> PromptStep:
    """The prompt step of a policy's preprocessor; none of its other steps is built.

    Raises:
        FileNotFoundError: The preprocessor or the step's state is missing.
        ValueError: The preprocessor has no prompt step, or a file is cut short.
    """
    remedy = "expected the folder pretrained_model of a checkpoint, with all its files"
    if not (policy.path / _PIPELINE).is_file():
        raise FileNotFoundError(f"{policy.path} lacks {_PIPELINE}, which holds the tokenizer: {remedy}.")
    steps = {step["registry_name"]: step for step in _read_steps(policy.path / _PIPELINE)}
    if _PROMPT_STEP not in steps:
        raise ValueError(
            f"{policy.path / _PIPELINE} has no step {_PROMPT_STEP!r}, which holds the tokenizer: {remedy}."
        )
    with built_from(policy.path / _PIPELINE):
        state_file = policy.path / steps[_PROMPT_STEP]["state_file"]
        if not state_file.is_file():
            raise FileNotFoundError(f"{policy.path} lacks {state_file.name}, the tokenizer: {remedy}.")
        step = PromptStep(**steps[_PROMPT_STEP]["config"])
        step.load_state_dict({name: stored.read() for name, stored in stored_weights(state_file).items()})
        return step


def _name_tokenizer_class(file: Path) -> None:
    """Name the tokenizer's class as transformers 4 and 5 both know it; 5 by itself writes one that 4 lacks."""
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
