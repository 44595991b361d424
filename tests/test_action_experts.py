"""examples/action_experts.py with commands that only say that they were called: what is done once, by which options, and the tables."""

import importlib
import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# Layouts that each arm solves, with every seed.
SOLVED = {"flow": [1, 1, 0, 0], "tokens": [0, 0, 0, 1], "key_values": [1, 1, 1, 0]}
MODULES = (
    "action_experts",
    "action_experts_measures",
    "depth_helps_measures",
    "experiments",
    "runs",
    "tables",
)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example, and the list of what it called."""
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("action_experts")
    shared = importlib.import_module("experiments")
    called: list[list[str]] = []

    def run(log, *command, **_):
        called.append([str(part) for part in command])
        folder = next(part.split("=")[1] for part in called[-1] if part.startswith("--output.root="))
        (Path(folder) / "meta").mkdir(parents=True)
        (Path(folder) / "meta" / "info.json").touch()

    def train(output, name, config, *arguments, **_):
        called.append(["train", name, *arguments])
        shared.trained(output, name).parent.mkdir(parents=True, exist_ok=True)
        shared.trained(output, name).touch()

    def evaluate(output, folder, name, *arguments, episodes):
        called.append(["evaluate", name, str(episodes)])
        (output / folder).mkdir(parents=True)
        metrics = {"successes": SOLVED[name.rpartition("_s")[0]], "sum_rewards": [0.0] * 4}
        per_task = [{"task_group": "libero_object", "task_id": 9, "metrics": metrics}]
        (output / folder / "eval_info.json").write_text(json.dumps({"per_task": per_task}))

    for stand_in in (run, train, evaluate):
        monkeypatch.setattr(shared, stand_in.__name__, stand_in)
    axes = {axis: {"mean": 0.25} for axis in ("xy", "z")}
    monkeypatch.setattr(shared, "measure", lambda *_: {"first_action": axes})
    monkeypatch.setattr(module, "seconds_per_chunk", lambda *_: {"cpu_s": 0.5, "n": 20})
    yield module, called
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def call(example, tmp_path, monkeypatch):
    """A function that calls it with options; returns the tables."""
    module, _ = example

    def call_with(*options: str) -> str:
        folders = [f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path}"]
        monkeypatch.setattr(sys, "argv", ["action_experts.py", "--episodes=4", *folders, *options])
        module.main()
        return (tmp_path / "results" / "tables.md").read_text()

    return call_with


def test_cells_are_done_once_and_make_a_table(example, call):
    _, called = example
    arguments = ("--seeds", "0", "1", "--arms", "flow", "tokens", "key_values")
    lines = call(*arguments).splitlines()
    flow, tokens, keys = lines[-3:]
    assert flow.startswith("| flow | 2 | 4 of 8 | 22 to 78 % | 50, 50 |  | 0.250 (0.250 to 0.250) |")
    assert tokens.startswith("| tokens | 2 | 2 of 8 | 7 to 59 % | 25, 25 | 2 : 4, p = 0.7 |")
    assert keys.startswith("| key_values | 2 | 6 of 8 | 41 to 93 % | 75, 75 | 2 : 0, p = 0.5 |")
    assert "Start and setting: scratch; 1000 steps:" in lines
    kinds = [command[0].rpartition("/")[2] for command in called]
    assert kinds == ["lerobot-gem-libero-demos"] * 2 + ["train", "evaluate"] * 6
    assert call(*arguments).splitlines() == lines
    assert len(called) == 14


def test_arms_differ_in_their_options_alone(example, call):
    _, called = example
    call("--seeds", "3", "--arms", "flow", "tokens", "key_values")
    flow, tokens, keys = (set(command[2:]) for command in called if command[0] == "train")
    assert flow < tokens and flow < keys
    assert "--policy.action_tokens.act=tokens" in tokens - flow
    assert keys - flow == {"--policy.expert.conditioning=key_values"}
    [episodes] = [option for option in flow if option.startswith("--dataset.episodes=")]
    assert json.loads(episodes.partition("=")[2]) == list(range(1600))
    assert "--seed=1003" in flow


def test_a_start_is_one_checkpoint_with_folders_of_its_own(example, call, tmp_path):
    _, called = example
    (tmp_path / "gem").mkdir()
    (tmp_path / "other").mkdir()
    call("--seeds", "0", "--arms", "flow")
    found = call("--seeds", "0", "--arms", "flow", f"--start={tmp_path / 'gem'}")
    assert "setting: scratch" in found and "setting: pretrained" in found
    assert f"--policy.backbone.pretrained={tmp_path / 'gem'}" in called[-2]
    with pytest.raises(SystemExit, match="holds cells of .*gem, not of .*other"):
        call("--seeds", "0", "--arms", "flow", f"--start={tmp_path / 'other'}")


def test_three_seeds_are_compared_as_seeds_too(example):
    from tables import success_cells

    baseline = {seed: [0, 0, 1, 1] for seed in range(3)}
    better = {0: [1, 0, 1, 1], 1: [1, 1, 1, 1], 2: [1, 0, 1, 1]}
    # Differences of 0.25, 0.5 and 0.25: t = 4 with two degrees of freedom.
    assert success_cells(better, baseline)[-1] == "4 : 0, p = 0.1; over seeds p = 0.06"
    assert success_cells(dict(list(better.items())[:2]), baseline)[-1] == "3 : 0, p = 0.2"
    assert success_cells(baseline, baseline)[-1] == "0 : 0, p = 1"
