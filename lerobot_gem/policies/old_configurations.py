"""Fields of our configurations that version 0.1 wrote and later ones do not, so that its checkpoints load for ever after.

draccus refuses a field in a file that a configuration lacks, and has no hook for policies. So the configurations keep
these fields where they were; not as options of the command line (`init=False`), and not in files that are written.
`base_configuration.py` moves their values to where they belong now.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import draccus
from draccus.parsers.encoding import encode_choice, encode_dataclass
from draccus.utils import is_choice_type


def _old() -> Any:
    return field(default=None, init=False, repr=False, compare=False, metadata={"old": True})


class OldFields:
    """What is read from old files, and never written."""

    def take_old(self) -> dict[str, Any]:
        """The values that an old file gave, by field; they are gone then."""
        values = {name: getattr(self, name) for name in self._old_names()}
        for name in values:
            setattr(self, name, None)
        return {name: value for name, value in values.items() if value is not None}

    def _old_names(self) -> list[str]:
        return [entry.name for entry in fields(self) if entry.metadata.get("old")]  # type: ignore[arg-type]


@dataclass
class OldBackboneFields(OldFields):
    """Now in `built.backbone`."""

    architecture: dict[str, Any] | None = _old()


@dataclass
class OldDepthFields(OldFields):
    """Now `built.generator`, `built.depth_cameras` and `depth.colormap`."""

    architecture: dict[str, Any] | None = _old()
    pairs: dict[str, str] | None = _old()
    colouring: str | None = _old()


@dataclass
class OldExpertFields(OldFields):
    """Now in `built.expert` and `built.action_dim`."""

    hidden_size: int | None = _old()
    depth: int | None = _old()
    num_heads: int | None = _old()
    num_kv_heads: int | None = _old()
    num_register_tokens: int | None = _old()
    norm_eps: float | None = _old()
    multiple_of: int | None = _old()
    ffn_dim_multiplier: float | None = _old()
    action_dim: int | None = _old()


@dataclass
class OldPolicyFields(OldFields):
    """Now in `built.stages_done`."""

    stages_done: list[str] | None = _old()


@draccus.encode.register(OldFields, include_subclasses=True)
def _encode_without_old(config: Any, declared_type: type | None = None) -> dict[str, Any]:
    if is_choice_type(declared_type or type(config)):
        values = encode_choice(config, declared_type or type(config))
    else:
        values = encode_dataclass(config, declared_type)
    return {name: value for name, value in values.items() if name not in config._old_names()}
