"""Tokenizer, image processor and chat template of our policies, as the files that transformers' AutoProcessor reads.

A policy checkpoint keeps them as the configuration and state of its prompt step.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from lerobot_gem.checkpoints.layouts import open_checkpoint
from lerobot_gem.processing.steps import PromptStep
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer

_PIPELINE = "policy_preprocessor.json"

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


def load_tokenizer(pretrained: str | Path | None, **hub_kwargs: Any) -> Any:
    """The tokenizer of a Qwen3-VL folder or Hub id, or of a checkpoint of ours; without any, the `tiny` preset's.

    Args:
        pretrained: Folder or Hub id.
        **hub_kwargs: `revision`, `cache_dir`, `local_files_only` and the like.

    Raises:
        OSError: The folder has no tokenizer, or the Hub can't be reached.
    """
    if pretrained is None:
        return build_tiny_tokenizer()
    checkpoint = open_checkpoint(pretrained, **hub_kwargs)
    if checkpoint.layout == "policy":
        return _prompt_step(checkpoint.path).tokenizer
    try:
        return AutoTokenizer.from_pretrained(pretrained, **hub_kwargs)
    except (OSError, ValueError) as error:
        raise OSError(
            f"No tokenizer could be loaded from backbone.pretrained={str(pretrained)!r}: expected a folder with "
            "tokenizer.json, or a Hub id that is cached or reachable (unset HF_HUB_OFFLINE, check the network, or "
            f"download it first with `hf download {pretrained}`)."
        ) from error


def write_processor_files(policy: Path, output: Path) -> None:
    """Write what AutoProcessor and `generate` need beside the weights.

    Args:
        policy: Folder of a policy checkpoint, processors included.
        output: Folder to write to.

    Raises:
        FileNotFoundError: The checkpoint lacks its processors.
    """
    step = _prompt_step(policy)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=step.tokenizer.backend_tokenizer,
        pad_token=step.tokenizer.pad_token,
        eos_token="<|im_end|>",
        chat_template=_CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(output)
    _name_tokenizer_class(output / "tokenizer_config.json")
    images = step.images
    patches = {
        "patch_size": images.patch_size,
        "temporal_patch_size": images.temporal_patch_size,
        "merge_size": images.merge_size,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    size = {"shortest_edge": images.min_pixels, "longest_edge": images.max_pixels}
    Qwen2VLImageProcessor(**patches, size=size).save_pretrained(output)
    Qwen3VLVideoProcessor(**patches).save_pretrained(output)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(output)


def _prompt_step(policy: Path) -> PromptStep:
    if not (policy / _PIPELINE).is_file():
        raise FileNotFoundError(
            f"{policy} lacks {_PIPELINE}, which holds the tokenizer: expected the folder pretrained_model of a "
            "checkpoint, with all its files."
        )
    entries = json.loads((policy / _PIPELINE).read_text())["steps"]
    [entry] = [entry for entry in entries if entry.get("registry_name") == "gem_prompt"]
    step = PromptStep(**entry["config"])
    step.load_state_dict(load_file(policy / entry["state_file"]))
    return step


def _name_tokenizer_class(file: Path) -> None:
    """Transformers 5 writes a class that its predecessors lack; the older name works in both."""
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
