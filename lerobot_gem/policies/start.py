"""What a training that starts from a checkpoint is told beside it, and LeRobot would take without a word."""

from pathlib import Path
from typing import Any

from draccus.cfgparsing import load_config
from lerobot.configs import parser

_SOURCES = ("backbone.pretrained", "expert.pretrained", "depth.pretrained")


def check_start(config: Any) -> None:
    """Look at the command line of a training with `--policy.path`; a run that is resumed has none, and goes on as it was.

    Args:
        config: Of the policy that is loaded to be trained.

    Raises:
        ValueError: Other weights are named beside the checkpoint's own, which would not be read. Or the checkpoint is an adapter, and
            `--peft` is missing: LeRobot 0.6.1 would save weights without a config.json (`save_checkpoint`), which nothing loads.
    """
    path = parser.get_path_arg("policy")
    if path is None:
        return
    given = parser.get_cli_overrides("policy") or []
    for name in _SOURCES:
        source = parser.parse_arg(name, given)
        if source not in (None, "null"):
            raise ValueError(
                f"--policy.{name}={source} beside --policy.path={path}, whose own weights are taken: expected one of them. A new policy "
                f"(--policy.type={config.type} in place of --policy.path) takes --policy.{name}."
            )
    if config.use_peft and not _is_adapted():
        raise ValueError(
            f"--policy.path={path} is an adapter, and --peft.method_type=LORA is missing, without which LeRobot saves nothing that loads. "
            "Expected it (the adapter goes on at its own rank), or a whole policy (lerobot-gem-convert --format=policy)."
        )


def _is_adapted() -> bool:
    """Whether the command line, or the file that it names, has options of `peft`."""
    if parser.get_cli_overrides("peft"):
        return True
    file = parser.parse_arg("config_path")
    if file is None:
        return False
    with Path(file).open() as stream:
        return bool(load_config(stream, file=file).get("peft"))
