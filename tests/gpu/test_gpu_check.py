"""benchmarks/gpu_check.py: on a GPU as `make gpu-check` runs it, on a CPU with the tiny policy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CPU = (
    "--preset=tiny",
    "--device=cpu",
    "--batch_size=2",
    "--depth_batch_size=2",
    "--image_size=64",
    "--repeats=1",
    "--chunks=1",
)


def check(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess, dict, str]:
    """Run it; what it said, its JSON and its table."""
    command = [sys.executable, "benchmarks/gpu_check.py", f"--output_dir={folder}", "--name=here", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not (folder / "here.json").exists():
        pytest.fail(done.stdout + done.stderr)
    return done, json.loads((folder / "here.json").read_text()), (folder / "here.md").read_text()


def check_equalities(rows: dict) -> None:
    """Nothing failed, what is exact is exact, and what rounds elsewhere is within the policy's tolerance."""
    failed = {name: row["failed"] for name, row in rows.items() if "failed" in row}
    assert not failed
    assert rows["plain"]["difference"] == 0
    for name in ("compiled", "one step, compiled"):
        assert rows[name]["is_compiled"] and rows[name]["difference"] <= 0.05
    assert rows["action, 8-bit, micro-batches"]["difference"] < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_2b_fits_and_acts_on_a_gpu(tmp_path):
    _, report, _ = check(tmp_path)
    check_equalities({name: row for name, row in report["rows"].items() if "not_run" not in row})


@pytest.mark.slow
def test_tiny_runs_every_row_on_a_cpu(tmp_path):
    done, report, table = check(tmp_path, *CPU, "--minutes=60")
    assert done.returncode == 0, done.stdout + done.stderr
    check_equalities(report["rows"])
    assert report["rows"]["int8"]["difference"] > 0
    assert all(f"| {name} |" in table for name in report["rows"])


@pytest.mark.slow
def test_a_row_that_fails_is_named_and_the_others_go_on(tmp_path):
    rows = "--rows", "action, 8-bit", "one step"
    done, report, table = check(tmp_path, *CPU, "--image_size=8", *rows)  # less than a patch
    assert done.returncode and set(report["rows"]) == {"action, 8-bit", "one step"}
    assert all("failed" in row for row in report["rows"].values())
    assert all(row["failed"].split(":")[0] in table for row in report["rows"].values())


@pytest.mark.slow
def test_what_there_is_no_time_for_is_listed(tmp_path):
    done, report, table = check(tmp_path, *CPU, "--minutes=-1", "--rows", "one step", "connector")
    assert done.returncode == 0
    assert all("not_run" in row for row in report["rows"].values())
    assert table.count("minutes were over") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "option", "message"),
    [
        ("gpu_check", "--preset=nosuch", "--preset: invalid choice: 'nosuch'"),
        ("acting", "--preset=nosuch", "--preset: invalid choice: 'nosuch'"),
        ("acting", "--repeats=0", "--repeats: 0: expected at least 1"),
    ],
)
def test_a_wrong_option_ends_the_command_before_anything_is_built(script, option, message):
    command = [sys.executable, f"benchmarks/{script}.py", option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, "benchmarks/gpu_check.py", f"--output_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "torch finds no CUDA device" in done.stderr
