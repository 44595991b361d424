"""How many frames of simulation a CPU-second gives: demonstrations, scenes beside them, and scenes alone.

Each job is a process of its own that collects with one worker, after a first piece of work that is not counted (imports, and
building the scene). Times are CPU seconds, since wall seconds on a shared machine say little; jobs take turns, so that
disturbances meet all. The goal is that scenes alone give at least 8 times the frames of demonstrations.

    python benchmarks/collecting.py --repeats=3
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

GOAL = 8.0


@dataclass(frozen=True)
class Job:
    """Pieces of work of one kind.

    Attributes:
        arguments: Of the collection.
        scenes: Batches of scenes instead of demonstrations.
        pieces: How many, beside the first.
    """

    arguments: dict[str, object]
    scenes: bool
    pieces: int


JOBS = {
    "demonstrations, 20 Hz": Job({"fps": 20}, scenes=False, pieces=3),
    "demonstrations, 5 Hz": Job({"fps": 5}, scenes=False, pieces=5),
    "scenes beside demonstrations": Job({"fps": 5}, scenes=True, pieces=2),
    "scenes alone": Job({"fps": 5, "mode": "scenes", "scenes_per_task": 1}, scenes=True, pieces=6),
}


def measure(job: Job, questions: bool) -> dict[str, float]:
    """Frames and CPU seconds of one job, in this process."""
    from lerobot_gem.data.libero_demos.attempt_files import (
        SCENES_PER_BATCH,
        Attempt,
        succeeded,
    )
    from lerobot_gem.data.libero_demos.collecting import run_attempt
    from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
    from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
    from lerobot_gem.storage.output_folder import OutputDataset
    from lerobot_gem.storage.recorded_episodes import episode_length

    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder)
        config = LiberoDemosConfig(
            output=OutputDataset(staging / "set"),
            qa=QuestionsConfig() if questions else None,
            **job.arguments,
        )
        size = SCENES_PER_BATCH if job.scenes else 0
        run_attempt(config, Attempt(0, 0, size), staging)
        start = time.process_time()
        attempts = [Attempt(0, number, size) for number in range(1, 1 + job.pieces)]
        for attempt in attempts:
            run_attempt(config, attempt, staging)
        seconds = time.process_time() - start
        folders = [staging / attempt.name for attempt in attempts]
        frames = sum(size or episode_length(folder) for folder in folders if succeeded(folder))
        return {"frames": frames, "seconds": seconds}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    options.add_argument("--questions", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.job:
        print(json.dumps(measure(JOBS[given.job], given.questions)))
        return
    rates: dict[tuple[str, bool], list[float]] = {}
    for repeat in range(given.repeats):
        for name in JOBS:
            for questions in (False, True):
                command = [sys.executable, __file__, f"--job={name}", *["--questions"] * questions]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found = json.loads(output.splitlines()[-1])
                rates.setdefault((name, questions), []).append(found["frames"] / found["seconds"])
                print(f"{repeat + 1}/{given.repeats} {name}, questions {questions}: {found}", file=sys.stderr)
    print("| job | frames per CPU-second | with questions | times the demonstrations at 20 Hz | at 5 Hz |")
    print("|---|---|---|---|---|")
    median = {key: statistics.median(values) for key, values in rates.items()}
    for name in JOBS:
        ratios = [median[name, False] / median[f"demonstrations, {hz} Hz", False] for hz in (20, 5)]
        print(
            f"| {name} | {median[name, False]:.1f} | {median[name, True]:.1f} | "
            + " | ".join(f"{ratio:.1f}" for ratio in ratios)
            + " |"
        )
    print(f"\nGoal: scenes alone at least {GOAL:.0f} times the demonstrations.")


if __name__ == "__main__":
    main()
