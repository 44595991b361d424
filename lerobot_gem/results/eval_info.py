"""Reads `eval_info.json`, which `lerobot-eval` writes (LeRobot 0.6.1).

The file says which suite and task an episode belongs to, whether it succeeded and its rewards; not the environment's type
and options, the seed, the policy or any version. So whoever reads it must know what was run.
"""

import json
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "eval_info.json"


@dataclass(frozen=True)
class TaskResult:
    """Episodes of one task, in the order of their seeds.

    Attributes:
        suite: LeRobot's task group, e.g. "libero_object".
        task_id: Task in the suite.
        successes: Whether each episode succeeded.
        sum_rewards: Of each episode.
    """

    suite: str
    task_id: int
    successes: tuple[bool, ...]
    sum_rewards: tuple[float, ...]


def read_eval_info(path: Path) -> list[TaskResult]:
    """The results in an evaluation, by suite and task.

    Args:
        path: An `eval_info.json`, or the folder that holds it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is another file.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no {file}: give lerobot-eval's --output_dir, or the {FILE_NAME} in it."
        )
    try:
        results = [
            TaskResult(
                str(task["task_group"]),
                int(task["task_id"]),
                tuple(bool(success) for success in task["metrics"]["successes"]),
                tuple(float(reward) for reward in task["metrics"]["sum_rewards"]),
            )
            for task in json.loads(file.read_text())["per_task"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not what lerobot-eval of LeRobot 0.6 writes, an object with `per_task`: {error!r}."
        ) from error
    if not any(result.successes for result in results):
        raise ValueError(f"{file} holds no episodes.")
    return sorted(results, key=lambda result: (result.suite, result.task_id))
