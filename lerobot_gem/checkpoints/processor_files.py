"""Tokenizer, image processor and chat template that come with a checkpoint.

A policy keeps them as the configuration and state of its prompt step, other checkpoints as the files that transformers'
AutoProcessor reads.
"""

import json
from pathlib import Path
from typing import Any

from lerobot.utils.constants import POLICY_PREPROCESSOR_DEFAULT_NAME
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from lerobot_gem.checkpoints.files import stored_weights
from lerobot_gem.checkpoints.formats import Checkpoint, read_json
from lerobot_gem.processing.steps import PromptStep
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer

_PIPELINE = f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"
# The name that processing/steps.py registers.
_PROMPT_STEP = "gem_prompt"

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
    return AutoTokenizer.from_pretrained(checkpoint.path)


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
    steps = {step.get("registry_name"): step for step in read_json(policy.path / _PIPELINE)["steps"]}
    if _PROMPT_STEP not in steps:
        raise ValueError(
            f"{policy.path / _PIPELINE} has no step {_PROMPT_STEP!r}, which holds the tokenizer: {remedy}."
        )
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
