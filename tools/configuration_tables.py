"""Writes the tables of docs/reference/configuration.md: each field of both policies, its default, meaning and source.

    python tools/configuration_tables.py

Names and defaults are the configurations' own, meanings their docstrings', sources those of tools/field_sources.yaml.
tests/test_configuration_tables.py fails where the page is not what this would write.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from lerobot.configs import PreTrainedConfig

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.scripts.options import attribute_meanings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "configuration.md"
SOURCES = ROOT / "tools" / "field_sources.yaml"
# What a user never sets: LeRobot does.
SET_BY_LEROBOT = {"rtc_config", "action_feature_names"}
PARTS = {"both": "Both policies", "gem": "`gem` alone", "gem_vla": "`gem_vla` alone"}


@dataclass(frozen=True)
class Option:
    """A field as the page shows it.

    Attributes:
        name: With dots, as behind `--policy.`.
        default: As on the command line.
        meaning: In Markdown.
    """

    name: str
    default: str
    meaning: str


def options(config: type, prefix: str = "") -> Iterator[Option]:
    """The options that are this package's own, those of nested blocks in their place.

    Args:
        config: A configuration, or a block of one.
        prefix: Of the block's fields, such as "depth.".
    """
    meanings = attribute_meanings(config)
    types = get_type_hints(config)
    others = {field.name for field in fields(PreTrainedConfig)} - {"push_to_hub"} | SET_BY_LEROBOT
    for field in fields(config):
        if not field.init or (not prefix and field.name in others):
            continue
        if is_dataclass(types[field.name]):
            yield from options(types[field.name], f"{prefix}{field.name}.")
        else:
            yield Option(prefix + field.name, shown(default_of(field)), markdown(meanings[field.name]))


def default_of(field: Field) -> Any:
    """The value that a field has when none is given."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        value = json.dumps(value)
    if isinstance(value, dict):
        value = json.dumps({key: getattr(item, "value", item) for key, item in value.items()})
    if isinstance(value, tuple):
        value = json.dumps(value)
    return f"`{value}`"


def markdown(meaning: str) -> str:
    """A docstring's text for a cell of a table: options and words in quotation marks are code, pages are links."""
    pieces = meaning.split("`")
    pieces[::2] = map(_prose, pieces[::2])
    return "`".join(pieces).replace("|", r"\|")


def _prose(text: str) -> str:
    """What stands outside of code."""
    text = re.sub(r"--[a-z_][\w.]*\w(?:=(?:<[^>]*>|[\w/]+))?", r"`\g<0>`", text)
    text = re.sub(r'(?<!\{)"(\w+)"(?!:)', r"`\1`", text)
    return re.sub(r"\bdocs/([\w/]+\.md)", lambda page: f"[{Path(page[1]).name}](../{page[1]})", text)


def tables() -> dict[str, str]:
    """The page's tables, by part. A field that means the same to both policies is in the first alone."""
    sources = yaml.safe_load(SOURCES.read_text())
    gem, gem_vla = (
        {option.name: option for option in options(config)} for config in (GemConfig, GemVLAConfig)
    )
    both = {name for name in gem if gem[name] == gem_vla.get(name)}
    parts = {
        "both": [gem[name] for name in gem if name in both],
        "gem": [option for name, option in gem.items() if name not in both],
        "gem_vla": [option for name, option in gem_vla.items() if name not in both],
    }
    if unknown := sources.keys() - gem.keys() - gem_vla.keys():
        raise ValueError(f"{SOURCES.name} has fields that no policy has: {sorted(unknown)}.")
    return {part: table(chosen, sources) for part, chosen in parts.items()}


def table(chosen: list[Option], sources: dict[str, str]) -> str:
    """Options as a table."""
    rows = [
        f"| `{option.name}` | {option.default} | {option.meaning} | {sources[option.name]} |"
        for option in chosen
    ]
    return "\n".join(["| field | default | meaning | source |", "|---|---|---|---|", *rows])


def updated(page: str) -> str:
    """The page with its tables as they should be.

    Args:
        page: Its text, where each table stands between two comments.
    """
    for part, made in tables().items():
        begin, end = f"<!-- {part}: made by tools/configuration_tables.py -->", f"<!-- end of {part} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(
                f"{PAGE.name} has no place for the table of {PARTS[part]}: expected {begin} and {end}."
            )
        page = f"{before}{begin}\n\n{made}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
