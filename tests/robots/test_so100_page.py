"""Each command of docs/how_to/so100.md is taken by the real parser of its program."""

import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how_to" / "so100.md"


def commands() -> list[list[str]]:
    """The commands of the page, as arguments."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                found.append(words)
    return found


COMMANDS = commands()


def taken(config_class: type, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Any:
    """The configuration that LeRobot's parser makes of a command line."""
    from lerobot.configs import parser

    def run(config: Any) -> Any:
        return config

    run.__annotations__ = {"config": config_class}
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    return parser.wrap()(run)()


def lerobots(module: str, name: str) -> Callable[..., Any]:
    def parse(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Any:
        import importlib

        return taken(getattr(importlib.import_module(module), name), monkeypatch, arguments)

    return parse


def ours(module: str, name: str) -> Callable[..., Any]:
    def parse(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Any:
        import importlib

        from lerobot_gem.scripts.options import parse_options

        return parse_options(getattr(importlib.import_module(module), name), arguments)

    return parse


def check(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Any:
    from lerobot_gem.data.check.inspector import CheckConfig
    from lerobot_gem.scripts.check import name_dataset

    Path(arguments[0]).mkdir(parents=True)
    return taken(CheckConfig, monkeypatch, name_dataset(arguments))


def cameras(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """This parser is made in its main."""
    from lerobot.scripts import lerobot_find_cameras

    assert arguments == ["opencv"]
    assert '"opencv"' in inspect.getsource(lerobot_find_cameras.main)


def python(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Any:
    import draccus
    from lerobot.async_inference.configs import RobotClientConfig

    assert arguments[:2] == ["-m", "lerobot.async_inference.robot_client"]
    return draccus.parse(RobotClientConfig, args=arguments[2:])


def nothing(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert arguments == []


SCRIPTS = "lerobot.scripts"
PARSERS: dict[str, Callable[..., Any]] = {
    "lerobot-find-port": nothing,
    "lerobot-find-cameras": cameras,
    "lerobot-setup-motors": lerobots(f"{SCRIPTS}.lerobot_setup_motors", "SetupConfig"),
    "lerobot-calibrate": lerobots(f"{SCRIPTS}.lerobot_calibrate", "CalibrateConfig"),
    "lerobot-teleoperate": lerobots(f"{SCRIPTS}.lerobot_teleoperate", "TeleoperateConfig"),
    "lerobot-record": lerobots(f"{SCRIPTS}.lerobot_record", "RecordConfig"),
    "lerobot-train": lerobots("lerobot.configs.train", "TrainPipelineConfig"),
    "lerobot-eval": lerobots("lerobot.configs.eval", "EvalPipelineConfig"),
    "lerobot-rollout": lerobots("lerobot.rollout", "RolloutConfig"),
    "lerobot-gem-preflight": lerobots("lerobot_gem.robots.preflight", "PreflightConfig"),
    "lerobot-gem-check": check,
    "lerobot-gem-label-depth": ours("lerobot_gem.data.depth_labels.labelling", "LabelDepthConfig"),
    "lerobot-gem-so101-demos": ours("lerobot_gem.data.so101_demos.collecting", "SO101DemosConfig"),
    "lerobot-gem-server": ours("lerobot_gem.robots.policy_server", "ServerConfig"),
    "python": python,
}


@pytest.fixture(autouse=True)
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with the clone's configurations, and with the checkpoints that the page makes."""
    from lerobot.scripts import lerobot_rollout  # noqa: F401 (registers robots and cameras)

    import lerobot_gem  # noqa: F401 (registers policies and environments)
    from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for run in ("cube", "so101"):
        folder = tmp_path / "outputs" / "train" / run / "checkpoints" / "last" / "pretrained_model"
        folder.mkdir(parents=True)
        GemVLAConfig(preset="tiny", device="cpu").save_pretrained(folder)
    monkeypatch.chdir(tmp_path)


def test_the_page_has_a_command_of_each_step():
    assert {words[0] for words in COMMANDS} == {*PARSERS, "pip"}


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[0] != "pip"], ids=lambda words: words[0]
)
def test_the_real_parser_takes_it(words: list[str], monkeypatch: pytest.MonkeyPatch):
    program, *arguments = words
    config = PARSERS[program](monkeypatch, arguments)
    for argument in arguments:
        if argument.startswith("--robot.cameras="):
            assert set(config.robot.cameras) == set(json.loads(argument.partition("=")[2]))


def test_extras_that_are_named_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"lerobot_policy_gem\[([\w,]+)\]", PAGE.read_text()):
        assert set(extra.split(",")) <= extras.keys()
