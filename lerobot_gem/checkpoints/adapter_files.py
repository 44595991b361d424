"""An adapter's files, looked at before PEFT reads them."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from lerobot_gem.checkpoints.adapters import CONFIG_FILE, check_numbers
from lerobot_gem.checkpoints.files import stored_weights
from lerobot_gem.checkpoints.formats import built_from, read_json

_WEIGHTS = "adapter_model.safetensors"
# What makes PEFT import a module by name, or read a file of the machine.
_FOREIGN = ("megatron_config", "corda_config", "lora_ga_config", "eva_config")
# Fields in which PEFT takes texts, or keys, for regular expressions.
_PATTERNS = (
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
)
# Of one expression: more of them may take hours to compare with the name of a module.
_MOST_REPEATS = _MOST_GROUPS = 3
_INIT = re.compile(r"gaussian|orthogonal|olora|pissa(_niter_\d{1,2})?")


def check_adapter_files(pretrained: str | Path, **hub_kwargs: Any) -> None:
    """Refuse an adapter that names modules or files to load, or asks for more than its weights hold.

    Args:
        pretrained: Hub id or folder of an adapter.
        **hub_kwargs: `revision`, `cache_dir`, `local_files_only` and the like.

    Raises:
        FileNotFoundError: It has no weights in safetensors' format.
        ValueError: It is refused, or a file is cut short.
    """
    config = read_json(_local(pretrained, CONFIG_FILE, **hub_kwargs))
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{pretrained}/{CONFIG_FILE} has peft_type {str(config.get('peft_type'))[:80]!r}: expected 'LORA'. Other methods of PEFT load the "
            "folders that they name (XLORA, SHADOW), or make tensors of sizes that no file holds."
        )
    foreign = [name for name in _FOREIGN if config.get(name) is not None]
    if foreign:
        raise ValueError(
            f"{pretrained}/{CONFIG_FILE} sets {', '.join(foreign)}, with which PEFT loads modules or files that it names: expected "
            "null. Do not load this adapter unless you wrote it; then remove the field, which acting does not need."
        )
    init = config.get("init_lora_weights")
    if isinstance(init, str) and not _INIT.fullmatch(init):
        raise ValueError(
            f"{pretrained}/{CONFIG_FILE} has init_lora_weights={init[:80]!r}: expected true, 'gaussian', 'orthogonal', 'olora', 'pissa' or "
            "'pissa_niter_4'. The adapter's weights replace it: set it to true, unless it is of another kind."
        )
    for name in _PATTERNS:
        for pattern in _texts(config.get(name)):
            if _is_costly(pattern):
                raise ValueError(
                    f"{pretrained}/{CONFIG_FILE} has the expression {pattern[:80]!r} in {name}, which may take hours to compare: expected "
                    "a list of modules' names."
                )
    check_numbers(f"{pretrained}/{CONFIG_FILE}", config)
    weights = stored_weights(_local(pretrained, _WEIGHTS, **hub_kwargs))
    largest = max((max(stored.shape, default=0) for stored in weights.values()), default=0)
    with built_from(f"{pretrained}/{CONFIG_FILE}"):
        ranks = [config.get("r", 0), *(config.get("rank_pattern") or {}).values()]
    if any(not isinstance(rank, int) or rank > largest for rank in ranks):
        raise ValueError(
            f"{pretrained}/{CONFIG_FILE} asks for rank {max(map(str, ranks), key=len)}, but no side of its weights is longer than {largest}: "
            "take both files from the same adapter."
        )


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | dict) else []


def _is_costly(pattern: str) -> bool:
    """Whether a regular expression may backtrack without end: a group that is repeated, or many repeats or choices."""
    plain = pattern.replace("(?:", "(")
    repeats = re.findall(r"[*+?{][?+]?", plain)
    return (
        bool(re.search(r"\)[*+?{]", plain)) or len(repeats) > _MOST_REPEATS or plain.count("(") > _MOST_GROUPS
    )


def _local(pretrained: str | Path, name: str, **hub_kwargs: Any) -> Path:
    if not Path(pretrained).is_dir():
        try:
            return Path(hf_hub_download(str(pretrained), name, **hub_kwargs))
        except EntryNotFoundError as error:
            raise FileNotFoundError(
                f"{pretrained} has no {name}, or it can't be fetched: expected an adapter as LeRobot writes it ({CONFIG_FILE}, {_WEIGHTS})."
            ) from error
    if not (Path(pretrained) / name).is_file():
        raise FileNotFoundError(
            f"{pretrained} has no {name}: expected an adapter as LeRobot writes it ({CONFIG_FILE}, {_WEIGHTS})."
        )
    return Path(pretrained) / name
