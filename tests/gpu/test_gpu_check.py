"""benchmarks/gpu_check.py: on a GPU as `make gpu-check` runs it, on a CPU with the tiny policy."""

import json
import platform
import runpy
import subprocess
import sys
from collections.abc import Callable
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


def written_to(folder: Path) -> tuple[str, ...]:
    """Options for where it writes its report."""
    return f"--output_dir={folder}", "--name=here"


def report_in(folder: Path) -> tuple[dict, str]:
    """Its JSON and its table."""
    return json.loads((folder / "here.json").read_text()), (folder / "here.md").read_text()


def check(folder: Path, *options: str) -> tuple[dict, str]:
    """Run it as a process, which ends well; its JSON and its table."""
    command = [sys.executable, "benchmarks/gpu_check.py", *written_to(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return report_in(folder)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """A function that runs a benchmark in this process, and gives what it exits with."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def run(script: str, *options: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{script}.py", *options])
        try:
            runpy.run_path(str(ROOT / "benchmarks" / f"{script}.py"), run_name="__main__")
        except SystemExit as ended:
            return ended.code
        return None

    return run


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
    report, _ = check(tmp_path)
    check_equalities({name: row for name, row in report["rows"].items() if "not_run" not in row})


@pytest.mark.slow
def test_tiny_runs_every_row_on_a_cpu(tmp_path):
    report, table = check(tmp_path, *CPU, "--minutes=60")
    check_equalities(report["rows"])
    assert report["rows"]["int8"]["difference"] > 0
    assert all(f"| {name} |" in table for name in report["rows"])


@pytest.mark.slow
def test_a_row_that_fails_is_named_and_the_others_go_on(tmp_path, run):
    options = *CPU, "--image_size=8", "--rows", "action, 8-bit", "one step"  # less than a patch
    assert run("gpu_check", *written_to(tmp_path), *options) == "Some rows failed."
    report, table = report_in(tmp_path)
    assert set(report["rows"]) == {"action, 8-bit", "one step"}
    assert all("failed" in row for row in report["rows"].values())
    assert all(row["failed"].split(":")[0] in table for row in report["rows"].values())


@pytest.mark.slow
def test_what_there_is_no_time_for_is_listed(tmp_path, run):
    options = *CPU, "--minutes=-1", "--rows", "one step", "connector"
    assert not run("gpu_check", *written_to(tmp_path), *options)
    report, table = report_in(tmp_path)
    assert all("not_run" in row for row in report["rows"].values())
    assert table.count("minutes were over") == 2


@pytest.mark.slow
def test_no_preset_or_size_writes_over_the_report_of_another(tmp_path, run):
    options = f"--output_dir={tmp_path}", *CPU, "--minutes=-1", "--rows", "one step"
    assert not run("gpu_check", *options)
    assert not run("gpu_check", *options, "--preset=2b", "--depth_batch_size=4")
    machine = platform.machine().lower()
    assert {file.name for file in tmp_path.glob("*.json")} == {
        f"{machine}_tiny_batch2_depth2_2x64px.json",
        f"{machine}_2b_batch2_depth4_2x64px.json",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "option", "message"),
    [
        ("gpu_check", "--preset=nosuch", "--preset: invalid choice: 'nosuch'"),
        ("acting", "--preset=nosuch", "--preset: invalid choice: 'nosuch'"),
        ("acting", "--repeats=0", "--repeats: 0: expected at least 1"),
    ],
)
def test_a_wrong_option_ends_the_command_before_anything_is_built(script, option, message, run, capsys):
    assert run(script, option) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path, run):
    said = run("gpu_check", *written_to(tmp_path))
    assert isinstance(said, str) and "torch finds no CUDA device" in said
    assert not list(tmp_path.iterdir())
