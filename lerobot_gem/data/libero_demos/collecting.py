"""Demonstrations and scenes from the LIBERO simulator, with metric depth and questions, as a LeRobotDataset v3.0.

Demonstrations are those of a scripted policy, or LIBERO's own ones shown again (`source`).
Every attempt is a function of (seed, task, attempt number) alone, so that it does not matter how many processes share
the work or how often the run was interrupted. A finished attempt is kept on disk at once, in a folder beside the
dataset. When there are enough of them, the dataset is written from those files, and the folder disappears.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path

from lerobot_gem.data.libero_demos.attempt_files import (
    SCENES_PER_BATCH,
    Attempt,
    read_instruction,
    succeeded,
    write_attempt,
)
from lerobot_gem.data.libero_demos.attempts import simulate_demonstration, simulate_scenes
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.dataset_writing import StoredAttempt, TaskReport, write_dataset
from lerobot_gem.data.libero_demos.replaying import replay_demonstration
from lerobot_gem.data.libero_demos.source_files import count_demonstrations, source_file
from lerobot_gem.data.worker_pool import worker_pool
from lerobot_gem.simulation.libero_setup import require_libero
from lerobot_gem.simulation.placements import require_wide
from lerobot_gem.simulation.scripted_policies import SCRIPTED_POLICIES
from lerobot_gem.storage.output_folder import DATASET, begin_or_resume, check_output, explained_full_disk

# A scripted policy that fails more often than this is broken, and collecting would never end.
_MIN_SUCCESS = 1 / 4


@dataclass(frozen=True)
class _Task:
    """A task of the suite.

    Attributes:
        number: In the suite.
        instruction: Its text, as evaluation gives it to a policy. That of a recorded file differs from it in some suites
            ("pick the akita black bowl").
        recorded: Demonstrations in its file; None when the scripted policy demonstrates.
    """

    number: int
    instruction: str
    recorded: int | None = None


def _staging(config: LiberoDemosConfig) -> Path:
    """The folder of finished attempts, made or checked; a dataset at `output.root` is never touched without being told."""
    check_output(config.output.root, config.overwrite, DATASET)
    staging = config.output.root.with_name(config.output.root.name + ".attempts")
    begin_or_resume(
        staging,
        config.content(),
        resume=config.resume,
        overwrite=config.overwrite,
        work="collection",
        decided_by="settings",
    )
    return staging


def run_attempt(config: LiberoDemosConfig, attempt: Attempt, staging: Path) -> bool:
    """Make an attempt and keep it in the folder of all attempts; returns whether it succeeded."""
    if config.source is not None:
        recording = replay_demonstration(config, attempt)
    elif attempt.scenes:
        recording = simulate_scenes(config, attempt)
    else:
        recording = simulate_demonstration(config, attempt)
    write_attempt(attempt, recording, staging)
    return recording is not None


def _attempt(config: LiberoDemosConfig, task_id: int, number: int, scenes: bool) -> Attempt:
    left = config.scenes_per_task - number * SCENES_PER_BATCH
    return Attempt(task_id, number, min(SCENES_PER_BATCH, left) if scenes else 0)


def _outcomes(
    config: LiberoDemosConfig, task: _Task, scenes: bool, staging: Path, pool: Executor | None
) -> Iterator[tuple[Attempt, bool]]:
    """Attempts of a task as they finish, until exactly the wanted number of them have succeeded, or there are no more."""
    wanted = -(-config.scenes_per_task // SCENES_PER_BATCH) if scenes else config.episodes_per_task
    available = math.inf if task.recorded is None else task.recorded
    number, failures = 0, 0
    running: dict[Future[bool], Attempt] = {}
    while True:
        # Never more attempts than can all be needed: the set of attempts is then the same for any number of workers.
        while number < min(wanted + failures, available):
            attempt = _attempt(config, task.number, number, scenes)
            number += 1
            folder = staging / attempt.name
            if folder.exists():
                success = succeeded(folder)
            elif pool is None:
                success = run_attempt(config, attempt, staging)
            else:
                running[pool.submit(run_attempt, config, attempt, staging)] = attempt
                continue
            failures += not success
            _give_up_if_hopeless(config, task, wanted, failures)
            yield attempt, success
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            attempt, success = running.pop(future), future.result()
            failures += not success
            _give_up_if_hopeless(config, task, wanted, failures)
            yield attempt, success


def _give_up_if_hopeless(config: LiberoDemosConfig, task: _Task, wanted: int, failures: int) -> None:
    if config.source is not None:
        if failures == task.recorded:
            raise RuntimeError(
                f"None of the {failures} demonstrations of {config.suite} task {task.number} in {config.source} passes LIBERO's "
                "success test: are these the files of this suite? Leave this task out with --task_ids."
            )
    elif failures > 10 and failures > (1 / _MIN_SUCCESS - 1) * wanted:
        raise RuntimeError(
            f"The scripted policy failed {failures} times while {wanted} successes were wanted in {config.suite} task "
            f"{task.number} (placement {config.placement}, action_noise {config.action_noise}): giving up. Lower "
            "--action_noise, or leave this task out with --task_ids."
        )


def collect(config: LiberoDemosConfig) -> list[TaskReport]:
    """Collect demonstrations and write the dataset.

    Returns:
        One report per task.

    Raises:
        LiberoNotReadyError: LIBERO is not set up.
        FileExistsError: Something is at `output.root` (or unfinished beside it) and neither `resume` nor `overwrite` is set, or it
            is no dataset.
        FileNotFoundError: `source` lacks the file of a task.
        ValueError: A continuation with other settings, an unknown suite or task, or a file in `source` that is not LIBERO's.
        RuntimeError: The scripted policy can't solve a task, or no recorded demonstration of it succeeds.
        OSError: The disk is full.
    """
    require_libero()
    tasks = _tasks(config)
    if config.source is None:
        if config.suite not in SCRIPTED_POLICIES:
            raise ValueError(
                f"There is no scripted policy for {config.suite}; there is for {', '.join(SCRIPTED_POLICIES)}. Pass the folder "
                "of LIBERO's own demonstrations with --source."
            )
        if config.placement == "wide" or config.scenes_per_task > 0 or config.random_start:
            require_wide(config.suite)
    staging = _staging(config)
    advice = f"Finished attempts are kept in {staging}: free some space and run the same command with --resume=true."
    with explained_full_disk(config.output.root, advice):
        stored, reports = _attempts(config, tasks, staging)
        write_dataset(config, stored, reports)
    shutil.rmtree(staging)
    return reports


def _attempts(
    config: LiberoDemosConfig, tasks: Sequence[_Task], staging: Path
) -> tuple[list[StoredAttempt], list[TaskReport]]:
    """The successful attempts of all tasks, in the order of the dataset, and a report on each task's demonstrations."""
    from tqdm.auto import tqdm

    reports: list[TaskReport] = []
    stored: list[StoredAttempt] = []
    # The workers are forked before a progress bar starts a thread, and before this process has a GL context.
    with worker_pool(config.num_workers) as pool:
        for task in tasks:
            for scenes in (False, True):
                outcomes: dict[Attempt, bool] = {}
                wanted = config.scenes_per_task if scenes else config.episodes_per_task
                if task.recorded is not None:
                    wanted = min(wanted, task.recorded)
                # A bar for each: a demonstration takes as long as dozens of scenes, and no rate holds for both.
                unit = "scene" if scenes else "demonstration"
                with tqdm(
                    total=wanted, unit=unit, desc=f"task {task.number}, {unit}s", disable=not wanted
                ) as progress:
                    for attempt, success in _outcomes(config, task, scenes, staging, pool):
                        outcomes[attempt] = success
                        progress.update(success * (attempt.scenes or 1))
                good = sorted((a for a, ok in outcomes.items() if ok), key=lambda a: a.number)
                folders = [(a, staging / a.name) for a in good]
                stored += [StoredAttempt(a, f, read_instruction(f) or task.instruction) for a, f in folders]
                if not scenes and config.episodes_per_task:
                    reports.append(TaskReport(task.number, task.instruction, len(good), len(outcomes)))
    return stored, reports


def _tasks(config: LiberoDemosConfig) -> list[_Task]:
    """Those that are asked for."""
    from libero.libero import benchmark

    suites = benchmark.get_benchmark_dict()
    if config.suite not in suites:
        raise ValueError(f"Unknown LIBERO suite '{config.suite}'. Known: {', '.join(sorted(suites))}.")
    known, tasks = suites[config.suite]().tasks, []
    for number in sorted(set(config.task_ids)) or range(len(known)):
        if not 0 <= number < len(known):
            raise ValueError(f"{config.suite} has tasks 0 to {len(known) - 1}, but task_ids has {number}.")
        recorded = None
        if config.source is not None:
            file = source_file(config.source, config.suite, known[number].name)
            recorded = count_demonstrations(file, config.fps)
        tasks.append(_Task(number, known[number].language, recorded))
    return tasks
