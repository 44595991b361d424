"""The commands of docs/how_to/scale.md are taken by the real parsers, and its figures are those that the benchmark printed."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from lerobot_gem.data.depth_labels.labelling import LabelDepthConfig
from lerobot_gem.data.gem_jsonl.importing import ImportGemConfig
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.scripts.options import parse_options

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how_to" / "scale.md").read_text()
OURS = {
    "lerobot-gem-import": ImportGemConfig,
    "lerobot-gem-label-depth": LabelDepthConfig,
    "lerobot-gem-libero-demos": LiberoDemosConfig,
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = commands()


def test_every_way_is_there() -> None:
    assert {words[0] for words in COMMANDS} == {"lerobot-train", "torchrun", "accelerate", *OURS}
    ours = [words for words in COMMANDS if words[0] in OURS]
    assert {word for words in ours for word in words if word.startswith("--executor")} == {
        "--executor=slurm",
        "--executor=ray",
    }


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] in OURS], ids=" ".join)
def test_our_commands_parse(words: list[str]) -> None:
    parse_options(OURS[words[0]], words[1:])


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] not in OURS], ids=" ".join)
def test_trainings_parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that go on from a checkpoint need it to be parsed: their files are."""
    from lerobot.configs import parser
    from lerobot.configs.train import TrainPipelineConfig

    if words[0] == "accelerate":
        place = words.index("$(which")
        launch = launch_command_parser().parse_args([*words[2:place], "lerobot-train"])
        assert (ROOT / launch.config_file).exists()
        assert launch.num_machines in (None, 4) and launch.fsdp_sharding_strategy in (
            "FULL_SHARD",
            "HYBRID_SHARD",
            "1",
        )
    arguments = [word for word in words if word.startswith("--") and "=" in word]
    [config] = [word.partition("=")[2] for word in arguments if word.startswith("--config_path=")]
    text = (ROOT / config).read_text()
    if re.search(r"^  path: ", text, re.MULTILINE):
        return

    def run(config: TrainPipelineConfig) -> TrainPipelineConfig:
        return config

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *arguments])
    parsed = parser.wrap()(run)()
    assert parsed.dataset.repo_id == "you/your_data"
    if any(word.startswith("--job.") for word in arguments):
        assert parsed.job.is_remote and parsed.job.image == "you/lerobot-gem:latest"


def test_figures_are_those_that_were_printed() -> None:
    printed = (ROOT / "results" / "scaling.md").read_text()
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1]
        for line in printed.splitlines()
        if line.startswith("|")
    }
    wanted = {
        "steps": "steps of 256",
        "seconds of a step: computing": "seconds of a step, computing",
        "network, sharded in each machine": "seconds of a step, network, sharded in nodes",
        "network, sharded over all 32": "seconds of a step, network, sharded over all",
        "GB on each GPU: weights, gradients, AdamW": "weights, gradients, AdamW on each of 8 GPUs of a node, float32, GB",
        "gathered at a time": "gathered at a time, GB",
        "samples read in a second, all machines": "samples read in a second",
        "CPU cores that read, for each GPU": "CPU cores that read, for each GPU",
    }
    told = {
        line.split("|")[1].strip(): line.split("|")[2:4] for line in PAGE.splitlines() if line.startswith("|")
    }
    for name, row in wanted.items():
        assert [cell.strip() for cell in told[name]] == [cell.strip() for cell in rows[row]], name
