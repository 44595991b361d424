"""What the examples share, with commands that only say that they were called: going on after an interruption."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import write_dataset

EXAMPLES = Path(__file__).parents[1] / "examples"

# Logs and saves every tenth step up to 40, as lerobot-train does, and stops at 30 when it is called for the first time.
TRAIN = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
options = dict(argument.split("=", 1) for argument in sys.argv[1:])
resumed = options.get("--resume") == "true"
last = Path(options["--config_path"]).parent if resumed else None
folder = last.parents[2] if resumed else Path(options["--output_dir"])
start = int(last.resolve().parent.name) if resumed else 0
print("threads", os.environ["OMP_NUM_THREADS"])
for step in range(start + 10, 41, 10):
    print(f"INFO step:{{step}} smpl:1 loss:{{step / 100 + resumed:.3f}}", flush=True)
    if step % 20 == 0:
        saved = folder / "checkpoints" / f"{{step:06d}}" / "pretrained_model"
        saved.mkdir(parents=True)
        (saved / "train_config.json").touch()
        link = folder / "checkpoints" / "last"
        link.unlink(missing_ok=True)
        link.symlink_to(saved.parent.name)
    if step == 30 and not resumed:
        sys.exit(1)
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("runs", EXAMPLES / "runs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command = tmp_path / "bin" / "lerobot-train"
    command.parent.mkdir()
    command.write_text(TRAIN)
    command.chmod(0o755)
    monkeypatch.setattr(module, "BIN", command.parent)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sys, "argv", ["examples/demo.py", "--fresh", "--recipe=long"])
    return module


def test_training_goes_on_from_its_last_checkpoint(runs: ModuleType, tmp_path: Path) -> None:
    def train() -> None:
        runs.train(tmp_path, "run", "gem_vla_tiny", steps=40, log_every=10)

    log = tmp_path / "logs" / "run.log"
    with pytest.raises(SystemExit, match=re.escape(f"{log}")) as stopped:
        train()
    assert str(stopped.value.code).endswith("examples/demo.py --recipe=long"), (
        "how to go on, from where it stopped"
    )
    assert runs.logged(log, "loss") == [0.1, 0.2, 0.3] and not runs.trained(tmp_path, "run").exists()
    train()
    # Step 30 was done again, from the checkpoint of step 20.
    assert runs.logged(log, "loss") == [0.1, 0.2, 1.3, 1.4]
    assert runs.trained(tmp_path, "run").exists()
    assert log.read_text().count("threads 1") == 2


def test_a_log_that_ends_within_a_character_is_read(runs: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes("Training: █".encode()[:-1] + b"\nINFO step:10 smpl:1 loss:0.500\n")
    assert runs.logged(log, "loss") == [0.5]


def test_minutes_of_all_tries_are_added(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 60, 100, 400])
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(runs.signal, "signal", lambda *handler: None)
    result, tries = tmp_path / "result", []

    def step() -> None:
        tries.append(0)
        if len(tries) == 1:
            raise KeyboardInterrupt
        result.touch()

    with pytest.raises(
        SystemExit, match=r"Interrupted. The same command goes on where this stopped: .*demo.py"
    ):
        runs.run_steps(tmp_path, {"train": (result, step)})
    assert runs.run_steps(tmp_path, {"train": (result, step)}) == {"train": 6.0}
    assert json.loads((tmp_path / "minutes.json").read_text()) == {"train": 6.0}
    assert runs.run_steps(tmp_path, {"train": (result, step)}) == {"train": 6.0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_one_line(tmp_path: Path, number: signal.Signals) -> None:
    """The command that was running ends, too."""
    program = tmp_path / "example.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "from pathlib import Path\n"
        "from runs import run, run_steps\n"
        f"here = Path({str(tmp_path)!r})\n"
        "command = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)']\n"
        "run_steps(here, {'wait': (here / 'never', lambda: run(here / 'log', *command))})\n"
    )
    process = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log, deadline = tmp_path / "log", time.monotonic() + 60
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip().startswith("Interrupted. The same command goes on") and "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


@pytest.mark.slow
def test_a_real_training_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    """lerobot-train itself, interrupted behind its first checkpoint; the command that is then named finishes it."""
    write_dataset(tmp_path / "data")
    program = tmp_path / "example.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "from pathlib import Path\n"
        "from runs import run_steps, train, trained\n"
        f"here = Path({str(tmp_path)!r})\n"
        "small = ['--dataset.repo_id=local/noise', '--batch_size=2', '--num_workers=0']\n"
        "def training(): train(here, 'train', 'gem_vla_tiny', *small, steps=40, log_every=5)\n"
        "run_steps(here, {'train': (trained(here, 'train'), training)})\n"
    )
    process = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    last, deadline = tmp_path / "train" / "checkpoints" / "last", time.monotonic() + 600
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and not (tmp_path / "train" / "finished").exists()
    said = errors.strip().rpartition("\n")[2]
    assert said.startswith("Interrupted. The same command goes on where this stopped: ")
    first = json.loads((tmp_path / "minutes.json").read_text())["train"]
    done = int(last.resolve().name)
    assert 0 < done < 40
    finished = subprocess.run(shlex.split(said.partition(": ")[2]), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert "--resume=true" in finished.stdout
    assert last.resolve().name == "000040" and (tmp_path / "train" / "finished").exists()
    log = (tmp_path / "logs" / "train.log").read_text()
    assert re.findall(r"step:(\d+) ", log) == [str(step) for step in range(5, 45, 5)]  # none twice
    assert json.loads((tmp_path / "minutes.json").read_text())["train"] > first > 0
