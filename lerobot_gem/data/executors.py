"""Work in tasks, as pipelines of datatrove: by processes of this machine, on a Slurm cluster, or on Ray.

A command's work has phases, each of which any number of tasks share, and a finish. What a task makes lies in files that are complete
or absent and depend on no other task; the finish makes one result of all of them. So the result is the same for any number of
tasks on any executor, and a run that was killed goes on where it stopped.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from loguru import logger
from tqdm.auto import tqdm

from lerobot_gem.validation import require_at_least

EXECUTORS = ("local", "slurm", "ray")
# How to go on after a failure, for commands that keep what is complete.
RESUMABLE = "What is complete is kept: the same command with --resume=true goes on."

# In the folder of unfinished work.
_NOTES = "tasks"
# For each process of this machine, so that none waits long for the last of the others.
_TASKS_PER_PROCESS = 16


@dataclass
class ClusterOptions:
    """What each task gets on a cluster: `--cluster.*`.

    Attributes:
        partition: Slurm's partition.
        time: Slurm's limit for a task, as hours:minutes:seconds.
        cpus_per_task: CPU cores of a task.
        mem_per_cpu_gb: GB of memory for each of them.
        gpus_per_task: GPUs of a task.
        at_once: Most tasks that run at once; None for all.
        setup: Shell command with which each of Slurm's jobs begins, such as `module load ffmpeg`.
        sbatch: Further options of Slurm's sbatch, as a JSON object: `{"account": "me"}`.
    """

    partition: str | None = None
    time: str = "24:00:00"
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 4
    gpus_per_task: int = 0
    at_once: int | None = None
    setup: str | None = None
    sbatch: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_at_least(self, cpus_per_task=1, mem_per_cpu_gb=1, gpus_per_task=0, at_once=1)


@dataclass(kw_only=True)
class ExecutorOptions:
    """Where a command's work runs.

    Attributes:
        executor: `local` for this machine, `slurm` or `ray`; the result is the same.
        tasks: Tasks that share the work; a cluster runs each task by itself. None leaves the number to this machine; a cluster needs
            one.
        cluster: What each task gets on a cluster.
    """

    executor: str = "local"
    tasks: int | None = None
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def check_executor(self) -> None:
        """Refuse options that do not fit together.

        Raises:
            ValueError: The executor is unknown, or lacks options, or has some that it does not read.
        """
        if self.executor not in EXECUTORS:
            raise ValueError(f"executor={self.executor!r}: expected one of {', '.join(EXECUTORS)}.")
        require_at_least(self, tasks=1)
        defaults = ClusterOptions()
        given = [
            f"cluster.{one.name}={getattr(self.cluster, one.name)!r}"
            for one in fields(ClusterOptions)
            if getattr(self.cluster, one.name) != getattr(defaults, one.name)
        ]
        if self.executor == "local":
            if given:
                raise ValueError(
                    f"{', '.join(given)} with executor=local: expected --executor=slurm or --executor=ray, which read them."
                )
            return
        if self.tasks is None:
            raise ValueError(
                f"executor={self.executor} without tasks: expected how many tasks share the work, such as --tasks=64."
            )
        if self.executor == "slurm" and not self.cluster.partition:
            raise ValueError(
                "executor=slurm without a partition: expected --cluster.partition=<one of those that sinfo lists>."
            )
        of_slurm = ("cluster.partition", "cluster.time", "cluster.setup", "cluster.sbatch")
        if self.executor == "ray" and (unread := [one for one in given if one.startswith(of_slurm)]):
            raise ValueError(
                f"{', '.join(unread)} with executor=ray: expected --executor=slurm, which reads it."
            )


@dataclass(frozen=True)
class Phase:
    """A part of the work that must be over before the next one begins.

    Attributes:
        name: In file names and logs.
        run: Does the share of a task, given its rank and the number of tasks; skips what is complete.
        is_shared: Whether all tasks take part, instead of one.
        count: Tells how many pieces of work there are, more tasks than which would have none; None where that is not known.
        amount: Names how much work there is, where a run that goes on may have more; in file names.
    """

    name: str
    run: Callable[[int, int], None]
    is_shared: bool = True
    count: Callable[[], int] | None = None
    amount: str = ""


@dataclass(frozen=True)
class _Share:
    """A phase as a step of a datatrove pipeline."""

    run: Callable[[int, int], None]

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        self.run(rank, world_size)


@dataclass(frozen=True)
class _Finish:
    """The end of the work as a step of a datatrove pipeline."""

    finish: Callable[[], object]

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        self.finish()


def run_phases[Result](
    options: ExecutorOptions,
    staging: Path,
    phases: Sequence[Phase],
    finish: Callable[[], Result],
    *,
    processes: int,
    forks: bool = True,
    after_failure: str = RESUMABLE,
) -> Result | None:
    """Do some work in tasks.

    Args:
        options: Where.
        staging: Folder of the unfinished work, which all machines see.
        phases: In order; picklable.
        finish: Makes the result of what they left behind; picklable.
        processes: Of this machine, with the executor `local`.
        forks: Whether they may be forked, which saves each 10 to 20 CPU-seconds of imports: not where a GPU is used.
        after_failure: How to go on then, for messages.

    Returns:
        The result; None where Slurm goes on with the work.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        FileNotFoundError: There is no Slurm here.
        ChildProcessError: A process was killed, or tasks failed on Ray.
        Exception: Whatever a phase raises.
    """
    if options.executor == "slurm":
        _submit(options, staging, phases, finish, after_failure)
        return None
    tasks = options.tasks or (1 if processes == 1 else _TASKS_PER_PROCESS * processes)
    for phase in phases:
        shares = tasks if phase.is_shared else 1
        if options.tasks is None and phase.count is not None:
            shares = min(shares, phase.count())
        if not shares:
            continue
        try:
            if options.executor == "ray":
                _run_on_ray(options, phase, shares, staging)
            else:
                LocalExecutor(phase, shares, staging, processes if phase.is_shared else 1, forks).run()
        except ChildProcessError as error:
            raise ChildProcessError(f"{error} {after_failure}") from error
    return finish()


def share(pieces: int, rank: int, tasks: int) -> slice:
    """A task's share of some pieces: neighbours, since they have more in common than others, such as a scene to build."""
    return slice(pieces * rank // tasks, pieces * (rank + 1) // tasks)


class LocalExecutor(PipelineExecutor):
    """Processes of this machine; with one, this process itself.

    datatrove's `LocalPipelineExecutor` waits forever when one of its processes is killed, as a system without memory does, and
    leaves processes behind when the command is.

    Args:
        phase: What to run.
        tasks: That share it.
        staging: Folder of the unfinished work.
        processes: That take tasks.
        forks: See `run_phases`.
        ranks: Of the tasks to run here; None for all.
    """

    def __init__(
        self,
        phase: Phase,
        tasks: int,
        staging: Path,
        processes: int = 1,
        forks: bool = True,
        ranks: Sequence[int] | None = None,
    ) -> None:
        super().__init__([_Share(phase.run)], str(_notes(staging, phase, tasks)))
        self.name, self.tasks, self.processes = phase.name, tasks, processes
        self.method = "fork" if forks and sys.platform == "linux" else "spawn"
        self.ranks = ranks

    @property
    def world_size(self) -> int:
        return self.tasks

    def get_distributed_env(self, node_rank: int = -1) -> Any:
        local = dict.fromkeys(("cpus_per_task", "mem_per_cpu", "gpus_on_node"), "-1")
        local |= {"node_ips": "localhost", "executor": "LOCAL"}
        return {f"datatrove_{name}": value for name, value in local.items()}

    def run(self) -> None:
        """Run all tasks that are not complete.

        Raises:
            ChildProcessError: A process was killed.
            Exception: Whatever a task raises.
        """
        ranks = self.get_incomplete_ranks(self.ranks)
        processes = min(self.processes, len(ranks))
        if processes <= 1:
            _be_quiet()
            for rank in ranks:
                self._run_for_rank(rank)
            return
        # Forked before a thread is started, which a progress bar does.
        pool = ProcessPoolExecutor(
            processes, mp_context=get_context(self.method), initializer=_start_worker, initargs=(os.getpid(),)
        )
        futures: list[Future[Any]] = []
        try:
            futures = [pool.submit(self._run_for_rank, rank) for rank in ranks]
            for future in tqdm(as_completed(futures), total=len(futures), unit="task", desc=self.name):
                future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"One of {processes} processes was killed, perhaps for lack of memory: expected all to live. Take fewer (--num_workers, "
                "--tasks)."
            ) from error
        except Exception as error:
            if any(future.running() for future in futures):
                # They are waited for, since they leave complete pieces, and may take hours.
                said = f"{type(error).__name__}: {error}".rstrip(".")
                tqdm.write(
                    f"A task of the phase {self.name!r} failed with {said}. The command ends when the tasks that run have ended.",
                    file=sys.stderr,
                )
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _be_quiet() -> None:
    """Keep datatrove's log off the screen, where it tells of each task, and of an error before our message does."""
    logger.disable("datatrove")


def _start_worker(parent: int) -> None:
    """Watch the main process from a worker: one that was killed can't tell its workers, which would wait forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    _be_quiet()
    threading.Thread(target=watch, daemon=True).start()


def _run_on_ray(options: ExecutorOptions, phase: Phase, tasks: int, staging: Path) -> None:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "executor=ray needs Ray, which is not installed: pip install '.[ray]' in a clone of the plugin's repository."
        ) from error
    notes = _notes(staging, phase, tasks)
    ray.init(ignore_reinit_error=True)  # the cluster of RAY_ADDRESS, or this machine
    executor = RayPipelineExecutor(
        [_Share(phase.run)],
        tasks=tasks,
        workers=options.cluster.at_once or -1,
        logging_dir=str(notes),
        cpus_per_task=options.cluster.cpus_per_task,
        mem_per_cpu_gb=options.cluster.mem_per_cpu_gb,
        gpus_per_task=options.cluster.gpus_per_task,
    )
    executor.run()
    if failed := executor.get_incomplete_ranks():
        raise ChildProcessError(
            f"{len(failed)} of {tasks} tasks of the phase {phase.name!r} failed on Ray, the first with: {_last_error(notes, failed[0])} "
            "Mend it."
        )


def _last_error(notes: Path, rank: int) -> str:
    """The line of a task's log that names its error."""
    log = notes / "logs" / f"task_{rank:05d}.log"
    lines = log.read_text().split("\n") if log.exists() else []
    errors = [line for line in lines if line and not line.startswith(" ") and "Error" in line.split(":")[0]]
    return errors[-1] if errors else f"no error that {log} would name."


class _SlurmExecutor(SlurmPipelineExecutor):
    """Without the job that adds up the statistics of datatrove's own steps: it would write where the finish removes."""

    def launch_merge_stats(self) -> None:
        """Launch nothing."""


def _submit(
    options: ExecutorOptions,
    staging: Path,
    phases: Sequence[Phase],
    finish: Callable[[], object],
    after_failure: str,
) -> None:
    """Submit a job for each phase, and one for the finish, each of which waits for the one before."""
    if shutil.which("sbatch") is None:
        raise FileNotFoundError(
            "executor=slurm found no sbatch: expected to be started where jobs are submitted, on a login node of the cluster."
        )
    # datatrove's notes go with the work; those of the finish, which removes it, stay beside it.
    folder, last = staging.resolve(), staging.with_name(f"{staging.name}.slurm").resolve()
    if len(str(folder).split()) > 1:
        raise ValueError(
            f"{staging} has white space, which datatrove's scripts can't: expected another --output.root."
        )
    executor: _SlurmExecutor | None = None
    for phase in phases:
        shares = options.tasks if phase.is_shared and options.tasks else 1
        notes = _notes(folder, phase, shares)
        executor = _slurm_executor(
            options.cluster, f"gem-{phase.name}", _Share(phase.run), shares, notes, executor
        )
    executor = _slurm_executor(options.cluster, "gem-finish", _Finish(finish), 1, last, executor)
    # Asked for again, it has not done all that it should.
    executor.skip_completed = False
    executor.launch_job()
    print(
        f"Submitted to Slurm; gem-finish is job {executor.job_id}. Watch them with squeue --me. Logs are in {folder / _NOTES}, and in "
        f"{last} those of the finish. If a job fails, cancel those that are left (scancel), and mend it. {after_failure}"
    )


def _notes(staging: Path, phase: Phase, tasks: int) -> Path:
    """Folder of datatrove's logs of a phase, and of which tasks are complete.

    Another number of tasks shares the work otherwise, and a task that is complete may not be so of more work.
    """
    name = f"{phase.name}-{phase.amount}" if phase.amount else phase.name
    return staging / _NOTES / f"{name}-of-{tasks}"


def _slurm_executor(
    cluster: ClusterOptions,
    name: str,
    step: Callable[[object, int, int], None],
    tasks: int,
    notes: Path,
    depends: _SlurmExecutor | None,
) -> _SlurmExecutor:
    # The same environment as here, without activating it.
    setup = [cluster.setup] if cluster.setup else []
    setup.append(f"export PATH={Path(sys.executable).parent}:$PATH")
    return _SlurmExecutor(
        [step],
        tasks=tasks,
        time=cluster.time,
        partition=cluster.partition,
        cpus_per_task=cluster.cpus_per_task,
        mem_per_cpu_gb=cluster.mem_per_cpu_gb,
        gpus_per_task=cluster.gpus_per_task,
        workers=cluster.at_once or -1,
        job_name=name,
        qos=None,
        env_command="; ".join(setup),  # datatrove indents its script by its first lines
        sbatch_args=cluster.sbatch,
        depends=depends,
        logging_dir=str(notes),
    )
