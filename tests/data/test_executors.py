"""Work in tasks: shared, kept and finished, by processes here, by Slurm's scripts and by Ray."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lerobot_gem.data import executors
from lerobot_gem.data.executors import ClusterOptions, ExecutorOptions, Phase, run_phases, share

PIECES = 10


@dataclass(frozen=True)
class Squares:
    """Writes the square of each number to a file, and then their list."""

    staging: Path
    kills: bool = False

    def write(self, rank: int, tasks: int) -> None:
        self.staging.mkdir(exist_ok=True)
        if self.kills and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        for number in range(rank, PIECES, tasks):
            with (self.staging / f"{number}.txt").open("a") as file:
                file.write(f"{number**2}\n")

    def check(self, rank: int, tasks: int) -> None:
        assert len(list(self.staging.glob("*.txt"))) == PIECES and tasks == 1

    def finish(self) -> list[int]:
        squares = [int((self.staging / f"{number}.txt").read_text()) for number in range(PIECES)]
        self.staging.with_name("result.json").write_text(json.dumps(squares))
        return squares

    def run(self, options: ExecutorOptions, processes: int = 1) -> list[int] | None:
        phases = [Phase("write", self.write), Phase("check", self.check, is_shared=False)]
        return run_phases(options, self.staging, phases, self.finish, processes=processes)


SQUARES = [number**2 for number in range(PIECES)]


@pytest.mark.parametrize(("tasks", "processes"), [(None, 1), (3, 1), (None, 2), (3, 2)])
def test_any_number_of_tasks_and_processes(tmp_path: Path, tasks: int | None, processes: int) -> None:
    work = Squares(tmp_path / "work")
    assert work.run(ExecutorOptions(tasks=tasks), processes) == SQUARES
    # What is complete is skipped: files that are appended to would have two lines.
    assert work.run(ExecutorOptions(tasks=tasks), processes) == SQUARES


def test_there_are_no_more_tasks_than_pieces(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for pieces in (0, 1):
        phase = Phase(f"of{pieces}", lambda *share: seen.append(share), count=lambda pieces=pieces: pieces)
        run_phases(ExecutorOptions(), tmp_path, [phase], list, processes=2)
    assert seen == [(0, 1)]


@pytest.mark.parametrize(("pieces", "tasks"), [(7, 3), (2, 5), (6, 1)])
def test_the_shares_are_all_pieces_in_order(pieces: int, tasks: int) -> None:
    numbers = range(pieces)
    assert [one for rank in range(tasks) for one in numbers[share(pieces, rank, tasks)]] == list(numbers)


def test_an_error_of_a_task_is_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "work" / "0.txt").mkdir(parents=True)
    for processes in (1, 2):
        with pytest.raises(IsADirectoryError, match="0.txt"):
            Squares(tmp_path / "work").run(ExecutorOptions(), processes)
        assert "Traceback" not in capfd.readouterr().err  # which datatrove logs


@dataclass(frozen=True)
class FailsWhileOthersRun:
    """Fails in one task while the other sleeps."""

    folder: Path

    def __call__(self, rank: int, tasks: int) -> None:
        if rank == 0:
            while not (self.folder / "begun").exists():
                time.sleep(0.01)
            raise ValueError("the first is broken.")
        (self.folder / "begun").touch()
        time.sleep(2.0)
        (self.folder / "slept").touch()


def test_an_error_is_told_before_the_other_tasks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []
    slept = tmp_path / "slept"
    monkeypatch.setattr(executors.tqdm, "write", lambda text, file: told.append((text, slept.exists())))
    with pytest.raises(ValueError, match=r"^the first is broken\.$"):
        run_phases(
            ExecutorOptions(tasks=2),
            tmp_path / "work",
            [Phase("write", FailsWhileOthersRun(tmp_path))],
            list,
            processes=2,
        )
    assert slept.exists()
    assert told == [
        (
            "A task of the phase 'write' failed with ValueError: the first is broken. The command ends when the tasks that run have ended.",
            False,
        )
    ]


def test_a_process_that_is_killed_ends_the_command(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="One of 2 processes was killed.*--resume=true goes on"):
        Squares(tmp_path / "work", kills=True).run(ExecutorOptions(tasks=4), 2)
    assert Squares(tmp_path / "other").run(ExecutorOptions(tasks=4), 2) == SQUARES


def test_a_command_that_keeps_nothing_says_so(tmp_path: Path) -> None:
    phase = Phase("write", Squares(tmp_path / "work", kills=True).write)
    with pytest.raises(ChildProcessError, match="was killed.*Start again.$") as caught:
        run_phases(
            ExecutorOptions(tasks=4), tmp_path, [phase], list, processes=2, after_failure="Start again."
        )
    assert "--resume" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "cloud"}, "executor='cloud': expected one of local, slurm, ray"),
        ({"tasks": 0}, "tasks=0: expected at least 1"),
        ({"executor": "slurm"}, "executor=slurm without tasks: .* --tasks=64"),
        ({"executor": "slurm", "tasks": 2}, "without a partition: expected --cluster.partition="),
        (
            {"cluster": ClusterOptions(partition="cpu")},
            "cluster.partition='cpu' with executor=local: expected --executor=slurm",
        ),
        (
            {"executor": "ray", "tasks": 2, "cluster": ClusterOptions(time="1:00:00")},
            "cluster.time='1:00:00' with executor=ray",
        ),
    ],
)
def test_options_that_do_not_fit_together(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExecutorOptions(**options).check_executor()


def test_a_task_needs_something() -> None:
    with pytest.raises(ValueError, match="cpus_per_task=0: expected at least 1"):
        ClusterOptions(cpus_per_task=0)


# -- Slurm -------------------------------------------------------------------------------------------------------------

SLURM = ExecutorOptions(
    executor="slurm",
    tasks=3,
    cluster=ClusterOptions(
        partition="cpu",
        time="2:00:00",
        cpus_per_task=4,
        mem_per_cpu_gb=3,
        gpus_per_task=1,
        at_once=2,
        setup="module load ffmpeg",
        sbatch={"account": "me"},
    ),
)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of what was submitted: numbered scripts, and the arguments of each."""
    programs, submitted = tmp_path / "bin", tmp_path / "submitted"
    programs.mkdir()
    submitted.mkdir()
    program = programs / "sbatch"
    program.write_text(
        f'#!/bin/sh\nn=$(ls {submitted} | grep -c slurm)\nfor script; do :; done\ncp "$script" {submitted}/$n.slurm\n'
        f'echo "$@" > {submitted}/$n.arguments\necho Submitted batch job $((100 + n))\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return submitted


def test_slurm_gets_a_job_for_each_phase(
    tmp_path: Path, sbatch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Squares(tmp_path / "work").run(SLURM) is None
    scripts = {path.stem: path.read_text() for path in sorted(sbatch.glob("*.slurm"))}
    waits = [path.read_text() for path in sorted(sbatch.glob("*.arguments"))]
    assert list(scripts) == ["0", "1", "2"]
    assert "--dependency" not in waits[0]
    assert "--dependency=afterok:100 " in waits[1] and "--dependency=afterok:101 " in waits[2]
    for name, array, script in zip(
        ("write", "check", "finish"), ("0-2%2", "0-0%2", "0-0%2"), scripts.values(), strict=True
    ):
        lines = script.splitlines()
        for option in (
            f"job-name=gem-{name}",
            f"array={array}",
            "partition=cpu",
            "time=2:00:00",
            "cpus-per-task=4",
            "mem-per-cpu=3G",
            "gpus=1",
            "account=me",
        ):
            assert f"#SBATCH --{option}" in lines, (name, option)
        assert not [line for line in lines if "qos" in line]
        assert f"module load ffmpeg; export PATH={Path(sys.executable).parent}:$PATH" in lines
        assert lines[-1].startswith("srun") and "launch_pickled_pipeline" in lines[-1]
        assert Path(lines[-1].split()[-1]).is_file()
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    said = capsys.readouterr().out
    assert "gem-finish is job 102" in said and f"Logs are in {tmp_path / 'work' / 'tasks'}, " in said
    assert said.index("cancel those that are left (scancel)") < said.index("--resume=true")


@pytest.mark.slow
def test_slurms_jobs_do_the_work(tmp_path: Path, sbatch: Path) -> None:
    """Each array job as Slurm starts it, without Slurm."""
    options = replace(SLURM, tasks=2)
    Squares(tmp_path / "work").run(options)
    for program, content in (
        ("srun", 'while [ "$1" != launch_pickled_pipeline ]; do shift; done; exec "$@"'),
        ("scontrol", "echo here"),
    ):
        (path := sbatch.parent / "bin" / program).write_text(f"#!/bin/sh\n{content}\n")
        path.chmod(0o755)
    for number, tasks in enumerate((2, 1, 1)):
        for rank in range(tasks):
            variables = {"SLURM_ARRAY_TASK_ID": str(rank), "SLURM_NODELIST": "here", "RUN_OFFSET": "0"}
            # The pickles hold classes of this file.
            environment = {**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[2])}
            script = sbatch / f"{number}.slurm"
            text = script.read_text().replace("module load ffmpeg; ", "")
            subprocess.run(
                ["bash", "-e"], input=text, text=True, check=True, env=environment, capture_output=True
            )
    assert json.loads((tmp_path / "result.json").read_text()) == SQUARES
    # Asked again, only the finish is submitted.
    Squares(tmp_path / "work").run(options)
    assert len(list(sbatch.glob("*.slurm"))) == 4


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="found no sbatch: .* login node"):
        Squares(tmp_path / "work").run(SLURM)


def test_a_folder_that_scripts_can_not_name(tmp_path: Path, sbatch: Path) -> None:
    with pytest.raises(ValueError, match="has white space"):
        Squares(tmp_path / "my work").run(SLURM)
    assert not list(sbatch.iterdir())


# -- Ray -----------------------------------------------------------------------------------------------------------------


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"executor=ray needs Ray.*pip install '\.\[ray\]' in a clone"
    ):
        Squares(tmp_path / "work").run(ExecutorOptions(executor="ray", tasks=2))


@pytest.mark.slow
def test_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv(
        "RAY_worker_niceness", "0"
    )  # 15 otherwise: on a busy machine they would wait for minutes
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        options = ExecutorOptions(executor="ray", tasks=3, cluster=ClusterOptions(mem_per_cpu_gb=1))
        assert Squares(tmp_path / "work").run(options) == SQUARES
        assert Squares(tmp_path / "work").run(options) == SQUARES
        (tmp_path / "file" / "0.txt").mkdir(parents=True)
        with pytest.raises(
            ChildProcessError, match="1 of 3 tasks of the phase 'write' failed on Ray.*IsADirectoryError"
        ):
            Squares(tmp_path / "file").run(options)
    finally:
        ray.shutdown()


# -- killed ----------------------------------------------------------------------------------------------------------------

SLEEPER = """
import sys, time
from pathlib import Path
from lerobot_gem.data.executors import ExecutorOptions, Phase, run_phases
folder = Path(sys.argv[1])
def sleep(rank, tasks):
    (folder / f"started-{rank}").touch()
    time.sleep(60)
run_phases(ExecutorOptions(), folder / "work", [Phase("sleep", sleep)], list, processes=2)
"""


@pytest.mark.slow
def test_processes_end_with_the_command(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path)], start_new_session=True, env=environment
    )
    deadline = time.monotonic() + 120
    while (
        len(list(tmp_path.glob("started-*"))) < 2 and command.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    command.kill()
    assert command.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob("started-*"))) == 2
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(command.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(command.pid, signal.SIGKILL)
    pytest.fail("processes are left behind")
