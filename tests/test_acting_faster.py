"""examples/acting_faster.py with commands that only say that they were called: what is done once, and the table."""

import importlib
import json
import sys
from pathlib import Path

import draccus
import pytest

from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
# Layouts that each way solves.
SOLVED = {"steps_5": [1, 1, 1, 0], "steps_1": [0, 0, 1, 0], "one_camera": [1, 0, 0, 0]}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example, and the list of commands that it called."""
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("acting_faster")
    called: list[list[str]] = []

    def run(log, *command, **_):
        command = [str(part) for part in command]
        called.append(command)
        if "measure" in command[1]:
            Path(command[3]).parent.mkdir(parents=True, exist_ok=True)
            Path(command[3]).write_text(json.dumps({"chunk_s": 0.25, "peak_mb": 900.4, "n": 20}))

    def evaluate(output, folder, *arguments, episodes):
        called.append(["lerobot-eval", *map(str, arguments)])
        name = folder.removesuffix("_eval")
        (output / folder).mkdir()
        per_task = [{"task_group": "libero_object", "task_id": 9, "metrics": {"successes": SOLVED[name]}}]
        (output / folder / "eval_info.json").write_text(json.dumps({"per_task": per_task}))

    def train(output, name, config, *arguments, **_):
        called.append(["lerobot-train", *arguments])
        module.trained(output, name).parent.mkdir(parents=True)
        module.trained(output, name).touch()

    def success(folder):
        [task] = json.loads((folder / "eval_info.json").read_text())["per_task"]
        solved = task["metrics"]["successes"]
        return {"successes": sum(solved), "n": len(solved), "low": 0.1, "high": 0.9}

    for stand_in in (run, evaluate, train, success):
        monkeypatch.setattr(module, stand_in.__name__, stand_in)
    yield module, called
    del sys.modules["acting_faster"], sys.modules["runs"]


@pytest.fixture
def call(example, tmp_path, monkeypatch):
    """A function that calls it with cells; returns the table."""
    module, _ = example

    def call_with(*cells: str, policy: str = "policy") -> str:
        (tmp_path / policy).mkdir(exist_ok=True)
        (tmp_path / policy / "config.json").touch()
        folders = [f"--output_dir={tmp_path}"]
        options = [
            f"--policy.path={tmp_path / policy}",
            f"--dataset.root={tmp_path}",
            "--episodes=4",
            *folders,
        ]
        monkeypatch.setattr(sys, "argv", ["acting_faster.py", *options, "--cells", *cells])
        module.main()
        return (tmp_path / "results" / "table.md").read_text()

    return call_with


def test_cells_are_done_once_and_make_a_table(example, call):
    _, called = example
    table = call("steps_5", "steps_1").splitlines()
    assert table[2] == "| steps_5 | 0.250 | 900 | 3 of 4 | 0.10 to 0.90 | | | |"
    assert table[3] == "| steps_1 | 0.250 | 900 | 1 of 4 | 0.10 to 0.90 | steps_5 | 2 / 0 | 0.5 |"
    assert len(called) == 4 and "--policy.expert.num_inference_steps=1" in called[-1]
    assert call("steps_5", "steps_1").splitlines() == table
    assert len(called) == 4


def test_what_is_trained_is_trained_first(example, call):
    _, called = example
    call("one_camera")
    assert [command[0] for command in called][::2] == ["lerobot-train", "lerobot-eval"]
    assert '--policy.cameras.names=["observation.images.image"]' in called[0]


def test_lerobots_parser_takes_the_options_of_all_ways(example):
    module, _ = example
    for way in module.WAYS.values():
        options = [f"--{option}" for option in (*way.acting, *(way.training or ()))]
        config = draccus.parse(GemVLAConfig, args=["--preset=tiny", "--device=cpu", *options])
        assert config.cameras.names in (None, ["observation.images.image"])


def test_cells_of_another_policy_are_not_mixed_in(call):
    call("steps_5")
    with pytest.raises(SystemExit, match="holds cells of .*policy, not of .*other"):
        call("steps_5", policy="other")
