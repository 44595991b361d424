"""What lerobot-eval of LeRobot 0.6.1 writes."""

import json
from pathlib import Path

import pytest

from lerobot_gem.results.eval_info import read_eval_info


def write_eval_info(folder: Path, tasks: dict[tuple[str, int], list[bool]], wrong: int = 0) -> Path:
    """An eval_info.json as `eval_policy_all` makes it; the first `wrong` failures of each task have reward -1."""
    per_task = []
    for (suite, task_id), successes in tasks.items():
        failures = [i for i, success in enumerate(successes) if not success][:wrong]
        rewards = [1.0 if s else -1.0 if i in failures else 0.0 for i, s in enumerate(successes)]
        metrics = {"sum_rewards": rewards, "max_rewards": rewards, "successes": successes, "video_paths": []}
        per_task.append({"task_group": suite, "task_id": task_id, "metrics": metrics})
    folder.mkdir(parents=True, exist_ok=True)
    info = {"per_task": per_task, "per_group": {}, "overall": {"pc_success": float("nan")}}
    (folder / "eval_info.json").write_text(json.dumps(info))
    return folder


def test_reads_tasks_in_order(tmp_path: Path) -> None:
    folder = write_eval_info(
        tmp_path, {("libero_object", 3): [True, False], ("libero_goal", 0): [False]}, wrong=1
    )
    results = read_eval_info(folder)
    assert [(r.suite, r.task_id) for r in results] == [("libero_goal", 0), ("libero_object", 3)]
    assert results[1].successes == (True, False) and results[1].sum_rewards == (1.0, -1.0)
    assert read_eval_info(folder / "eval_info.json") == results


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--output_dir"):
        read_eval_info(tmp_path)
    for text in ("no JSON", "[]", '{"per_task": [{"task_group": "a"}]}'):
        (tmp_path / "eval_info.json").write_text(text)
        with pytest.raises(ValueError, match="is not what lerobot-eval"):
            read_eval_info(tmp_path)
    (tmp_path / "eval_info.json").write_text('{"per_task": []}')
    with pytest.raises(ValueError, match="holds no episodes"):
        read_eval_info(tmp_path)
