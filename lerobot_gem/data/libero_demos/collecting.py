"""Demonstrations and scenes from the LIBERO simulator, with metric depth and questions, as a LeRobotDataset v3.0.

Every attempt is a function of (seed, task, attempt number) alone, so that it does not matter how many processes share
the work or how often the run was interrupted. A finished attempt is kept on disk at once, in a folder beside the
dataset. When there are enough of them, the dataset is written from those files, and the folder disappears.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path

from lerobot_gem.data.libero_demos.attempt_files import SCENES_PER_BATCH, Attempt, succeeded
from lerobot_gem.data.libero_demos.attempts import run_attempt
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.dataset_writing import StoredAttempt, TaskReport, write_dataset
from lerobot_gem.data.worker_pool import worker_pool
from lerobot_gem.simulation.libero_setup import require_libero
from lerobot_gem.simulation.placements import require_wide
from lerobot_gem.simulation.scripted_policies import SCRIPTED_POLICIES
from lerobot_gem.storage.output_folder import DATASET, begin_or_resume, check_output, explained_full_disk

# A scripted policy that fails more often than this is broken, and collecting would never end.
_MIN_SUCCESS = 1 / 4


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


def _outcomes(
    config: LiberoDemosConfig, task_id: int, scenes: bool, staging: Path, pool: Executor | None
) -> Iterator[tuple[Attempt, bool]]:
    """Attempts of a task as they finish, until exactly the wanted number of them have succeeded."""
    wanted = -(-config.scenes_per_task // SCENES_PER_BATCH) if scenes else config.episodes_per_task
    number, failures = 0, 0
    running: dict[Future[bool], Attempt] = {}
    while True:
        # Never more attempts than can all be needed: the set of attempts is then the same for any number of workers.
        while number < wanted + failures:
            attempt = Attempt(task_id, number, scenes)
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
            _give_up_if_hopeless(config, task_id, wanted, failures)
            yield attempt, success
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            attempt, success = running.pop(future), future.result()
            failures += not success
            _give_up_if_hopeless(config, task_id, wanted, failures)
            yield attempt, success


def _give_up_if_hopeless(config: LiberoDemosConfig, task_id: int, wanted: int, failures: int) -> None:
    if failures > 10 and failures > (1 / _MIN_SUCCESS - 1) * wanted:
        raise RuntimeError(
            f"The scripted policy failed {failures} times while {wanted} successes were wanted in {config.suite} task "
            f"{task_id} (placement {config.placement}, action_noise {config.action_noise}): giving up. Lower --action_noise, or "
            "leave this task out with --task_ids."
        )


def collect(config: LiberoDemosConfig) -> list[TaskReport]:
    """Collect demonstrations and write the dataset.

    Returns:
        One report per task.

    Raises:
        LiberoNotReadyError: LIBERO is not set up.
        FileExistsError: Something is at `output.root` (or unfinished beside it) and neither `resume` nor `overwrite` is set, or it
            is no dataset.
        ValueError: A continuation with other settings, or an unknown suite or task.
        RuntimeError: The scripted policy can't solve a task.
        OSError: The disk is full.
    """
    require_libero()
    instructions = _instructions(config.suite)
    task_ids = sorted(set(config.task_ids)) or list(range(len(instructions)))
    for task_id in task_ids:
        if not 0 <= task_id < len(instructions):
            raise ValueError(
                f"{config.suite} has tasks 0 to {len(instructions) - 1}, but task_ids has {task_id}."
            )
    if config.suite not in SCRIPTED_POLICIES:
        raise ValueError(
            f"There is no scripted policy for {config.suite}; there is for {', '.join(SCRIPTED_POLICIES)}."
        )
    if config.placement == "wide" or config.scenes_per_task > 0 or config.random_start:
        require_wide(config.suite)
    staging = _staging(config)
    advice = f"Finished attempts are kept in {staging}: free some space and run the same command with --resume=true."
    with explained_full_disk(config.output.root, advice):
        stored, reports = _attempts(config, {task_id: instructions[task_id] for task_id in task_ids}, staging)
        write_dataset(config, stored, reports)
    shutil.rmtree(staging)
    return reports


def _attempts(
    config: LiberoDemosConfig, instructions: dict[int, str], staging: Path
) -> tuple[list[StoredAttempt], list[TaskReport]]:
    """The successful attempts of all tasks, in the order of the dataset, and a report on each task's demonstrations."""
    from tqdm.auto import tqdm

    reports: list[TaskReport] = []
    stored: list[StoredAttempt] = []
    # The workers are forked before a progress bar starts a thread, and before this process has a GL context.
    with worker_pool(config.num_workers) as pool:
        for task_id, instruction in instructions.items():
            for scenes in (False, True):
                outcomes: dict[Attempt, bool] = {}
                wanted = config.scenes_per_task if scenes else config.episodes_per_task
                # A bar for each: a demonstration takes as long as dozens of scenes, and no rate holds for both.
                unit = "scene" if scenes else "demonstration"
                with tqdm(
                    total=wanted, unit=unit, desc=f"task {task_id}, {unit}s", disable=not wanted
                ) as progress:
                    for attempt, success in _outcomes(config, task_id, scenes, staging, pool):
                        outcomes[attempt] = success
                        count = SCENES_PER_BATCH if scenes else 1
                        progress.update(success * min(count, wanted - progress.n))
                good = sorted((a for a, ok in outcomes.items() if ok), key=lambda a: a.number)
                stored += [StoredAttempt(a, staging / a.name, instruction) for a in good]
                if not scenes and config.episodes_per_task:
                    reports.append(TaskReport(task_id, instruction, len(good), len(outcomes)))
    return stored, reports


def _instructions(suite: str) -> list[str]:
    from libero.libero import benchmark

    suites = benchmark.get_benchmark_dict()
    if suite not in suites:
        raise ValueError(f"Unknown LIBERO suite '{suite}'. Known: {', '.join(sorted(suites))}.")
    return [task.language for task in suites[suite]().tasks]
