"""Each command of the pages is taken by the real parser of its program, and each block says what it needs.

Where no parser can be called, the options are looked up in the program's source. `NOT_PARSED` has the programs of which neither is done.

`python -m tests.page_commands` writes what blocks need. A block that needs nothing but a CPU is executed by a test, or `NOT_EXECUTED` says why not.
"""

import argparse
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.page_commands import ROOT, Command, blocks, commands, needs, tabled_commands
from tests.test_page_runs import RUNS

COMMANDS = [command for page, _, text in blocks() for command in commands(page, text)]
# Its header says which option to add.
TABLED = [
    Command(command.page, (*command.words, "--dataset.repo_id=you/your_data"))
    for command in tabled_commands("docs/how_to/fit_your_gpu.md")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Programs whose options no test looks at, and why.
NOT_PARSED = {
    ".": "The shell's own.",
    "export": "The shell's own.",
    "lmms-eval": "Not in the extra `dev`; docs/how_to/score_answers.md says which version took the command.",
    "python3.12": "Makes the environment with Python's own venv.",
    "ssh": "The system's.",
    "sudo": "Calls apt-get, the system's.",
}
SCRIPTS = "lerobot.scripts"


def taken(module: str, name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration that LeRobot's parser makes of a command line."""
    from lerobot.configs import parser

    def run(config: Any) -> Any:
        return config

    run.__annotations__ = {"config": getattr(importlib.import_module(module), name)}
    monkeypatch.setattr(sys, "argv", ["command", *words])
    return parser.wrap()(run)()


def train(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    config = taken("lerobot.configs.train", "TrainPipelineConfig", words, monkeypatch)
    if not config.resume:  # whose run is not there
        config.validate()
    return config


def ours(module: str, name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from lerobot_gem.scripts.options import parse_options

    return parse_options(getattr(importlib.import_module(module), name), words)


def card(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """It looks for the run of the checkpoint."""
    [folder] = [Path(word.partition("=")[2]) for word in words if word.startswith("--policy.path=")]
    make_run(folder)
    return ours("lerobot_gem.scripts.card", "CardConfig", words, monkeypatch)


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from lerobot_gem.scripts.check import name_dataset

    if words[0].startswith("data/"):
        Path(words[0]).mkdir(parents=True, exist_ok=True)
    return taken("lerobot_gem.data.check.inspector", "CheckConfig", name_dataset(words), monkeypatch)


def demos(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from lerobot_gem.scripts.libero_demos import parse

    return parse(words)


def libero_setup(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words in ([], ["--pro"])


def in_main(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What a parser makes of a command line that is made in the program's main, which goes no further."""
    parse = argparse.ArgumentParser.parse_args

    class ParsedError(Exception):
        pass

    def parse_and_stop(parser: argparse.ArgumentParser) -> None:
        raise ParsedError(parse(parser))

    monkeypatch.setattr(sys, "argv", ["command", *words])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(ParsedError) as parsed:
        importlib.import_module(module).main()
    return parsed.value.args[0]


def vla_eval(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = in_main("vla_eval.cli.main", words, monkeypatch)
    assert options.command == "run" and Path(options.config).exists()


def nothing(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words == []


def torchrun(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from torch.distributed.run import get_args_parser

    return started(get_args_parser().parse_args(words), monkeypatch)


def accelerate(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from accelerate.commands.launch import launch_command_parser

    assert words[0] == "launch"
    launch = launch_command_parser().parse_args(words[1:])
    assert launch.config_file is None or (ROOT / launch.config_file).exists()
    assert launch.num_machines in (None, 4)
    assert launch.fsdp_sharding_strategy in ("FULL_SHARD", "HYBRID_SHARD", "1")
    return started(launch, monkeypatch)


def started(launch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a launcher starts: a command, or a module of our commands."""
    program = launch.training_script
    if launch.module:
        script = program.removeprefix("lerobot_gem.scripts.").replace("_", "-")
        program = f"lerobot-gem-{script}"
    return PARSERS[program](launch.training_script_args, monkeypatch)


def python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    import draccus
    from lerobot.async_inference.configs import RobotClientConfig

    if words[0] != "-m":
        return options_exist(words)
    if words[1].startswith("tests."):
        assert (ROOT / words[1].replace(".", "/")).with_suffix(".py").exists()
        return None
    assert words[:2] == ["-m", "lerobot.async_inference.robot_client"]
    return draccus.parse(RobotClientConfig, args=words[2:])


def options_exist(words: list[str]) -> None:
    """A file of ours has the options that it is called with; vla-eval's server gets its own."""
    source = (ROOT / words[0]).read_text()
    for option in [word.partition("=")[0] for word in words[1:] if word.startswith("--")]:
        assert f'"{option}"' in source or "vla_eval" in source, option


def make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    [target] = [word for word in words if "=" not in word]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def pip(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words[0] == "install"
    extras = PROJECT["project"]["optional-dependencies"]
    for named in re.findall(r"(?:lerobot_policy_gem|\.|\.whl)\[([\w,-]+)\]", " ".join(words)):
        assert set(named.split(",")) <= extras.keys(), named


def pytests(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    markers = [line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    assert words[0] == "-m" and words[1] in markers


def hub(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the Hub's own command finds a command of its, and parses its options."""
    from huggingface_hub.cli.hf import app
    from typer.main import get_command

    command, context, name = app if hasattr(app, "resolve_command") else get_command(app), None, "hf"
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, list(words), parent=context)
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, list(words), parent=context)


PARSERS: dict[str, Callable[[list[str], pytest.MonkeyPatch], Any]] = {
    "lerobot-find-port": nothing,
    "lerobot-find-cameras": partial(in_main, f"{SCRIPTS}.lerobot_find_cameras"),
    "lerobot-setup-motors": partial(taken, f"{SCRIPTS}.lerobot_setup_motors", "SetupConfig"),
    "lerobot-calibrate": partial(taken, f"{SCRIPTS}.lerobot_calibrate", "CalibrateConfig"),
    "lerobot-teleoperate": partial(taken, f"{SCRIPTS}.lerobot_teleoperate", "TeleoperateConfig"),
    "lerobot-record": partial(taken, f"{SCRIPTS}.lerobot_record", "RecordConfig"),
    "lerobot-dataset-viz": partial(in_main, f"{SCRIPTS}.lerobot_dataset_viz"),
    "lerobot-edit-dataset": partial(taken, f"{SCRIPTS}.lerobot_edit_dataset", "EditDatasetConfig"),
    "lerobot-train": train,
    "lerobot-eval": partial(taken, "lerobot.configs.eval", "EvalPipelineConfig"),
    "lerobot-rollout": partial(taken, "lerobot.rollout", "RolloutConfig"),
    "lerobot-gem-preflight": partial(taken, "lerobot_gem.robots.preflight", "PreflightConfig"),
    "lerobot-gem-card": card,
    "lerobot-gem-check": check,
    "lerobot-gem-convert": partial(ours, "lerobot_gem.checkpoints.convert", "ConvertConfig"),
    "lerobot-gem-depth-viz": partial(taken, "lerobot_gem.evaluation.depth_report", "DepthReportConfig"),
    "lerobot-gem-eval-vqa": partial(ours, "lerobot_gem.evaluation.vqa", "VqaEvaluationConfig"),
    "lerobot-gem-export": partial(ours, "lerobot_gem.data.gem_jsonl.exporting", "ExportGemConfig"),
    "lerobot-gem-import": partial(ours, "lerobot_gem.data.gem_jsonl.importing", "ImportGemConfig"),
    "lerobot-gem-label-depth": partial(ours, "lerobot_gem.data.depth_labels.labelling", "LabelDepthConfig"),
    "lerobot-gem-libero-demos": demos,
    "lerobot-gem-libero-report": partial(ours, "lerobot_gem.scripts.libero_report", "LiberoReportConfig"),
    "lerobot-gem-libero-setup": libero_setup,
    "lerobot-gem-rename": partial(ours, "lerobot_gem.storage.renaming", "RenameConfig"),
    "lerobot-gem-so101-demos": partial(ours, "lerobot_gem.data.so101_demos.collecting", "SO101DemosConfig"),
    "lerobot-gem-server": partial(ours, "lerobot_gem.robots.policy_server", "ServerConfig"),
    "torchrun": torchrun,
    "accelerate": accelerate,
    "python": python,
    "make": make,
    "pip": pip,
    "hf": hub,
    "vla-eval": vla_eval,
    "pytest": pytests,
    ".venv/bin/pytest": pytests,
}

# Blocks that need no more than a CPU, by page and by what stands in no other block of it. tests/test_page_runs.py executes most, these elsewhere: the
# file, and what stands in it. CI makes all targets of CONTRIBUTING.md but `demo`.
EXECUTED = {
    ("CONTRIBUTING.md", "make lint"): (".ci/run", "make test-slow"),
    ("docs/how_to/reproduce_libero.md", "episodes_needed.py"): (
        "tests/test_episodes_needed.py",
        "needed.main()",
    ),
    ("results/server/README.md", "test_policy_server.py"): (".ci/run", "make test-slow"),
}
# Those that no test executes, and why.
NOT_EXECUTED = {
    (
        "CONTRIBUTING.md",
        "GEM_REFERENCE_FIXTURES",
    ): "Other fixtures are made with the official code, which is not here. "
    "`make test` runs the same tests with those of tests/reference/.",
    (
        "docs/tutorials/demo.md",
        "make demo",
    ): "Half an hour. It calls the commands of docs/how_to/pretrain.md, which are executed, "
    "with examples/runs.py, which tests/test_examples.py tests.",
    (
        "docs/results/depth_helps.md",
        "--settings geometry",
    ): "Other arms and seeds of the program that the block above it calls, which is executed.",
}
LISTED = (*RUNS, *EXECUTED, *NOT_EXECUTED)


pytestmark = pytest.mark.usefixtures("quick_parsers")


@pytest.fixture(autouse=True)
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with the clone's configurations, and a parser that has read no file yet, as in a new process."""
    from lerobot.configs import parser
    from lerobot.scripts import lerobot_rollout  # noqa: F401 (registers robots and cameras)

    import lerobot_gem  # noqa: F401 (registers policies and environments)

    monkeypatch.setattr(parser, "_config_path_args", {})
    monkeypatch.setattr(parser, "_config_yaml_overrides", {})
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)


def make_checkpoints(words: list[str]) -> None:
    """Write the configuration of each policy that a command goes on from, here or in a file of configs/."""
    from lerobot_gem.policies.gem.configuration_gem import GemConfig
    from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

    given = dict(word.partition("=")[::2] for word in words if "=" in word)
    paths = [given[name] for name in ("--policy.path", "--policy.distillation.teacher") if name in given]
    if file := given.get("--config_path"):
        if not Path(file).exists():
            make_run(Path(file).parent)
        paths.append(yaml.safe_load(Path(file).read_text()).get("policy", {}).get("path"))
    for path in filter(None, paths):
        config = GemConfig if re.search(r"gem_\w+_stage", path) else GemVLAConfig
        if not Path(path).exists():
            Path(path).mkdir(parents=True)
            config(preset="tiny", device="cpu").save_pretrained(path)


def make_run(folder: Path) -> None:
    """Write the configuration of a run that a command goes on with."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig

    from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

    folder.mkdir(parents=True, exist_ok=True)
    policy = GemVLAConfig(preset="tiny", device="cpu")
    TrainPipelineConfig(DatasetConfig("local/data"), policy=policy).save_pretrained(folder)


@pytest.mark.parametrize(
    "command", [c for c in (*COMMANDS, *TABLED) if c.words[0] not in NOT_PARSED], ids=str
)
def test_the_real_parser_takes_it(command: Command, monkeypatch: pytest.MonkeyPatch):
    program, *words = command.words
    make_checkpoints(words)
    config = PARSERS[program](words, monkeypatch)
    for word in words:
        if word.startswith("--robot.cameras=") and program != "python":
            assert set(config.robot.cameras) == set(json.loads(word.partition("=")[2]))


def test_no_option_is_left_out_of_a_command():
    assert not [str(command) for command in COMMANDS if any("…" in word for word in command.words)]


def test_each_row_of_a_table_of_commands_is_read():
    assert len(TABLED) == 8
    assert "--config_path=configs/policy/gem_vla_8b_depth.yaml" in TABLED[-1].words


def test_no_program_is_listed_that_is_gone():
    assert {command.words[0] for command in COMMANDS} >= NOT_PARSED.keys()


@pytest.mark.parametrize(
    ("page", "said", "text"), [block for block in blocks() if block[0].startswith("docs/")]
)
def test_a_block_says_what_it_needs(page: str, said: str, text: str):
    assert said == needs(page, text), "run: python -m tests.page_commands"


def test_each_block_for_a_cpu_is_executed_or_said_not_to_be():
    for page, _, text in blocks():
        if not needs(page, text):
            keys = [key for key in LISTED if key[0] == page and key[1] in text]
            assert len(keys) == 1, (
                f"{page}: expected one key of RUNS, EXECUTED and NOT_EXECUTED, got {keys} for\n{text}"
            )


def test_no_block_is_listed_that_is_gone():
    for page, part in LISTED:
        assert [1 for at, _, text in blocks() if at == page and part in text] == [1], (page, part)


@pytest.mark.parametrize(("file", "part"), sorted(set(EXECUTED.values())))
def test_the_executing_test_is_there(file: str, part: str):
    assert part in (ROOT / file).read_text()


def test_extras_that_are_named_exist():
    extras = PROJECT["project"]["optional-dependencies"]
    for page in (ROOT / "docs").rglob("*.md"):
        for extra in re.findall(r"lerobot_policy_gem\[([\w,-]+)\]", page.read_text()):
            assert set(extra.split(",")) <= extras.keys(), page


def test_the_pages_of_an_arm_have_a_command_of_each_step():
    pages = {f"docs/how_to/{name}.md" for name in ("so100", "fine_tune_on_your_robot", "serve_policies")}
    programs = {command.words[0] for command in COMMANDS if command.page in pages}
    assert programs == {
        "lerobot-find-port",
        "lerobot-find-cameras",
        "lerobot-setup-motors",
        "lerobot-calibrate",
        "lerobot-teleoperate",
        "lerobot-record",
        "lerobot-dataset-viz",
        "lerobot-gem-check",
        "lerobot-gem-label-depth",
        "lerobot-train",
        "lerobot-gem-preflight",
        "lerobot-rollout",
        "lerobot-gem-server",
        "lerobot-gem-convert",
        "lerobot-gem-so101-demos",
        "lerobot-eval",
        "ssh",
        "python",
        "pip",
        "python3.12",
        ".",
    }


def test_the_page_of_many_gpus_has_every_way():
    scale = [command.words for command in COMMANDS if command.page == "docs/how_to/scale.md"]
    assert {words[0] for words in scale} == {
        "lerobot-train",
        "torchrun",
        "accelerate",
        "lerobot-gem-import",
        "lerobot-gem-label-depth",
        "lerobot-gem-libero-demos",
    }
    executors = {word for words in scale for word in words if word.startswith("--executor")}
    assert executors == {"--executor=slurm", "--executor=ray"}
    [job] = [words for words in scale if any(word.startswith("--job.") for word in words)]
    assert "--job.image=you/lerobot-gem:latest" in job
