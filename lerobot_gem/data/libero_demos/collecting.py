"""Demonstrations and scenes from the LIBERO simulator, with metric depth and questions, as a LeRobotDataset v3.0.

Demonstrations are those of a scripted policy, or LIBERO's own ones shown again (`source`).
Every attempt is a function of (seed, task, attempt number) alone, so that it does not matter how many tasks share the work or how
often the run was interrupted (data/rounds.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
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
from lerobot_gem.data.rounds import Collection, attempts_of_round
from lerobot_gem.simulation.libero_setup import require_libero
from lerobot_gem.simulation.naming import check_named
from lerobot_gem.simulation.placements import require_wide
from lerobot_gem.simulation.scene import definition_file
from lerobot_gem.simulation.scripted_policies import SCRIPTED_POLICIES

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


def collect(config: LiberoDemosConfig) -> list[TaskReport] | None:
    """Collect demonstrations and write the dataset.

    Returns:
        One report per task; None where Slurm goes on with it.

    Raises:
        LiberoNotReadyError: LIBERO is not set up.
        FileExistsError: Something is at `output.root` (or unfinished beside it) and neither `resume` nor `overwrite` is set, or it
            is no dataset.
        FileNotFoundError: `source` lacks the file of a task, or there is no Slurm.
        ValueError: A continuation with other settings, an unknown suite or task, a task whose scene lacks `named_object`, a file in
            `source` that is not LIBERO's, or settings or a source with which attempts at a task fail too often.
        ModuleNotFoundError: Ray is not installed.
        ChildProcessError: A process was killed, or tasks failed on Ray.
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
    return _Collection(config, tasks).run()


@dataclass(frozen=True)
class _Collection(Collection[LiberoDemosConfig, Attempt, list[TaskReport]]):
    tasks: list[_Task]

    def attempts(self, number: int) -> list[Attempt]:
        """All attempts of a round, by task, demonstrations before scenes, which never fail."""
        wanted = self.config.scenes_per_task
        scenes = range(-(-wanted // SCENES_PER_BATCH)) if number == 0 else ()
        return [
            attempt
            for task in self.tasks
            for attempt in (
                *(Attempt(task.number, one) for one in self._demonstrations(task, number)),
                *(
                    Attempt(task.number, one, min(SCENES_PER_BATCH, wanted - one * SCENES_PER_BATCH))
                    for one in scenes
                ),
            )
        ]

    def write(self) -> list[TaskReport]:
        """Write the dataset; returns the report on each task's demonstrations."""
        stored, reports = self.outcome()
        write_dataset(self.config, stored, reports)
        return reports

    def outcome(self) -> tuple[list[StoredAttempt], list[TaskReport]]:
        """The successful attempts of all tasks, in the order of the dataset, and a report on each task's demonstrations."""
        rounds: list[list[Attempt]] = []
        while attempts := self.attempts(len(rounds)):
            rounds.append(attempts)
        reports: list[TaskReport] = []
        stored: list[StoredAttempt] = []
        for task in self.tasks:
            made = [one for attempts in rounds for one in attempts if one.task_id == task.number]
            for is_scenes in (False, True):
                tried = [one for one in made if (one.scenes > 0) == is_scenes]
                good = [(one, self.staging / one.name) for one in tried if succeeded(self.staging / one.name)]
                stored += [StoredAttempt(a, f, read_instruction(f) or task.instruction) for a, f in good]
                if not is_scenes and self.config.episodes_per_task:
                    reports.append(TaskReport(task.number, task.instruction, len(good), len(tried)))
        return stored, reports

    def _demonstrations(self, task: _Task, number: int) -> range:
        """Numbers of a task's demonstrations in a round."""
        return attempts_of_round(
            number,
            self.config.episodes_per_task,
            lambda one: succeeded(self.staging / Attempt(task.number, one).name),
            lambda failures: self._give_up_if_hopeless(task, failures),
            available=task.recorded,
        )

    def _give_up_if_hopeless(self, task: _Task, failures: int) -> None:
        config, wanted = self.config, self.config.episodes_per_task
        if config.source is not None:
            if failures == task.recorded:
                raise ValueError(
                    f"None of the {failures} demonstrations of {config.suite} task {task.number} in {config.source} passes "
                    "LIBERO's success test: are these the files of this suite? Leave this task out with --task_ids."
                )
        elif failures > 10 and failures > (1 / _MIN_SUCCESS - 1) * wanted:
            raise ValueError(
                f"The scripted policy failed {failures} times while {wanted} successes were wanted in {config.suite} task "
                f"{task.number} (placement {config.placement}, action_noise {config.action_noise}): giving up. Lower "
                "--action_noise, or leave this task out with --task_ids."
            )

    def make(self, attempts: Sequence[Attempt], is_alone: bool) -> None:
        """Make those attempts that are not there."""
        from tqdm.auto import tqdm

        missing = [one for one in attempts if not (self.staging / one.name).exists()]
        for (task, is_scenes), group in groupby(missing, key=lambda one: (one.task_id, one.scenes > 0)):
            pieces = list(group)
            # A bar for each: a demonstration takes as long as dozens of scenes, and no rate holds for both.
            unit = "scene" if is_scenes else "demonstration"
            with tqdm(
                total=sum(one.scenes or 1 for one in pieces),
                unit=unit,
                desc=f"task {task}, {unit}s",
                disable=not is_alone,
            ) as progress:
                for attempt in pieces:
                    run_attempt(self.config, attempt, self.staging)
                    progress.update(attempt.scenes or 1)


def _tasks(config: LiberoDemosConfig) -> list[_Task]:
    """Those that are asked for, whose scenes all have the object that is to be named."""
    from libero.libero import benchmark

    suites = benchmark.get_benchmark_dict()
    if config.suite not in suites:
        raise ValueError(f"Unknown LIBERO suite '{config.suite}'. Known: {', '.join(sorted(suites))}.")
    known, tasks, definitions = suites[config.suite]().tasks, [], {}
    for number in sorted(set(config.task_ids)) or range(len(known)):
        if not 0 <= number < len(known):
            raise ValueError(f"{config.suite} has tasks 0 to {len(known) - 1}, but task_ids has {number}.")
        recorded = None
        if config.source is not None:
            file = source_file(config.source, config.suite, known[number].name)
            recorded = count_demonstrations(file, config.fps)
        tasks.append(_Task(number, known[number].language, recorded))
        definitions[f"{config.suite} task {number}"] = definition_file(known[number])
    check_named(config.named_object, definitions)
    return tasks
