"""Writes the tables of docs/reference/: each field of both policies, each option of our commands and of our environments.

    python tools/reference_tables.py

Names and defaults are the configurations' own, meanings their docstrings', sources of fields those of tools/field_sources.yaml.
tests/test_reference_tables.py fails where a page is not what this would write.
"""

import inspect
import json
import re
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from lerobot.configs import PreTrainedConfig

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.scripts.options import Option, options_of

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "docs" / "reference" / name for name in ("configuration.md", "commands.md", "environments.md")
]
SOURCES = ROOT / "tools" / "field_sources.yaml"
# What a user never sets: LeRobot does.
SET_BY_LEROBOT = {"rtc_config", "action_feature_names"}
# The options of each command: a configuration, and what of LeRobot's it adds to. Two have an option or none, and are explained by hand.
COMMANDS = {
    "card": ("scripts.card.CardConfig", None),
    "check": ("data.check.inspector.CheckConfig", "lerobot.configs.train.TrainPipelineConfig"),
    "convert": ("checkpoints.convert.ConvertConfig", None),
    "depth-viz": ("evaluation.depth_report.DepthReportConfig", None),
    "eval-vqa": ("evaluation.vqa.VqaEvaluationConfig", None),
    "export": ("data.gem_jsonl.exporting.ExportGemConfig", None),
    "import": ("data.gem_jsonl.importing.ImportGemConfig", None),
    "label-depth": ("data.depth_labels.labelling.LabelDepthConfig", None),
    "libero-demos": ("data.libero_demos.collection_config.LiberoDemosConfig", None),
    "libero-report": ("scripts.libero_report.LiberoReportConfig", None),
    "preflight": ("robots.preflight.PreflightConfig", "lerobot.rollout.RolloutConfig"),
    "rename": ("storage.renaming.RenameConfig", None),
    "server": ("robots.policy_server.ServerConfig", None),
    "so101-demos": ("data.so101_demos.collecting.SO101DemosConfig", None),
}
OTHERS = {"config", "libero-setup"}
ENVIRONMENTS = {
    "libero_wide": "envs.configuration_libero_wide.LiberoWideEnvConfig",
    "libero_pro": "envs.configuration_libero_pro.LiberoProEnvConfig",
    "gem_so101": "envs.configuration_so101.SO101EnvConfig",
}


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is MISSING:
        return "required"
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
    text = re.sub(r'(?<!\{)"([\w-]+)"(?!:)', r"`\1`", text)
    return re.sub(r"\bdocs/([\w/]+\.md)", lambda page: f"[{Path(page[1]).name}](../{page[1]})", text)


def tables() -> dict[str, str]:
    """All tables, by the name of their place: "both", "gem" and "gem_vla" for fields, the name of a command or environment for its options."""
    return (
        policy_tables()
        | {f"lerobot-gem-{name}": command_table(*configs) for name, configs in COMMANDS.items()}
        | {name: environment_table(path) for name, path in ENVIRONMENTS.items()}
    )


def policy_tables() -> dict[str, str]:
    """The fields of the policies. One that means the same to both is in the first table alone."""
    sources = yaml.safe_load(SOURCES.read_text())
    lerobots = {field.name for field in fields(PreTrainedConfig)} - {"push_to_hub"} | SET_BY_LEROBOT
    gem, gem_vla = (
        {option.name: option for option in options_of(config, without=lerobots)}
        for config in (GemConfig, GemVLAConfig)
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


def command_table(path: str, base: str | None) -> str:
    """The options of a command of ours.

    Args:
        path: Of its configuration in this package.
        base: LeRobot's configuration that it adds to, whose options are not told again.
    """
    inherited = {field.name for field in fields(named(base))} if base else set()
    config = named(f"lerobot_gem.{path}")
    options = list(options_of(config, without=inherited, closed=[PreTrainedConfig]))
    # What the command alone has comes first; where it runs is the same for many.
    shared = {field.name for base in config.__bases__ if is_dataclass(base) for field in fields(base)}
    return table(sorted(options, key=lambda option: option.name.split(".")[0] in shared))


def environment_table(path: str) -> str:
    """The options that an environment of ours has beside LeRobot's.

    Args:
        path: Of its configuration in this package.
    """
    config = named(f"lerobot_gem.{path}")
    inherited = {field.name for field in fields(config)} - inspect.get_annotations(config).keys()
    return table(list(options_of(config, "env.", without=inherited)))


def named(path: str) -> type:
    """The class with this path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def table(chosen: list[Option], sources: dict[str, str] | None = None) -> str:
    """Options as a table, with their sources where there are some."""
    dashes = "" if sources is not None else "--"
    lines = [
        "| field | default | meaning | source |" if sources is not None else "| option | default | meaning |"
    ]
    lines.append("|---" * (4 if sources is not None else 3) + "|")
    for option in chosen:
        source = f" {sources[option.name]} |" if sources is not None else ""
        default, meaning = shown(option.default), markdown(option.meaning)
        lines.append(f"| `{dashes}{option.name}` | {default} | {meaning} |{source}")
    return "\n".join(lines)


def updated(page: str, made: dict[str, str]) -> str:
    """A page with its tables as they should be.

    Args:
        page: Its text, where each table stands between two comments.
        made: The tables, by name.
    """

    def filled(place: re.Match[str]) -> str:
        return f"{place[1]}\n\n{made[place[2]]}\n\n{place[3]}"

    return re.sub(
        r"(<!-- ([\w-]+): made by tools/reference_tables\.py -->).*?(<!-- end -->)",
        filled,
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    all_tables = tables()
    for file in PAGES:
        file.write_text(updated(file.read_text(), all_tables))
