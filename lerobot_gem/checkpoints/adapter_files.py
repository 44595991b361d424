"""An adapter's files, looked at before PEFT reads them."""

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from lerobot_gem.checkpoints.adapters import CONFIG_FILE
from lerobot_gem.checkpoints.files import stored_weights
from lerobot_gem.checkpoints.formats import built_from, read_json

_WEIGHTS = "adapter_model.safetensors"
# What makes PEFT import a module by name, or read a file of the machine.
_FOREIGN = ("megatron_config", "corda_config", "lora_ga_config", "eva_config")


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
    foreign = [name for name in _FOREIGN if config.get(name) is not None]
    if foreign:
        raise ValueError(
            f"{pretrained}/{CONFIG_FILE} sets {', '.join(foreign)}, with which PEFT loads modules or files that it names: expected "
            "null. Do not load this adapter unless you wrote it; then remove the field, which acting does not need."
        )
    weights = stored_weights(_local(pretrained, _WEIGHTS, **hub_kwargs))
    largest = max((max(stored.shape, default=0) for stored in weights.values()), default=0)
    with built_from(f"{pretrained}/{CONFIG_FILE}"):
        ranks = [config.get("r", 0), *(config.get("rank_pattern") or {}).values()]
    if any(not isinstance(rank, int) or rank > largest for rank in ranks):
        raise ValueError(
            f"{pretrained}/{CONFIG_FILE} asks for rank {max(map(str, ranks), key=len)}, but no side of its weights is longer than {largest}: "
            "take both files from the same adapter."
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
