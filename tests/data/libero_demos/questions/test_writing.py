"""Sub-tasks and chosen questions in a dataset's language columns."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.libero_demos.questions.kinds import Question
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.questions.recorder import FrameLanguage
from lerobot_gem.data.libero_demos.questions.selection import MOST_COMMON
from lerobot_gem.data.libero_demos.questions.writing import write_language
from tests.conftest import CAMERAS, EPISODES, FRAMES

TOTAL = EPISODES * FRAMES


@pytest.fixture
def root(dataset_root: Path, tmp_path: Path) -> Path:
    """A dataset without language, 5 frames per second."""
    return Path(shutil.copytree(dataset_root, tmp_path / "set"))


def _frame(number: int, subtask: str) -> FrameLanguage:
    """Two kinds of questions about each camera; every count is 3."""
    questions = []
    for camera in CAMERAS:
        questions.append(Question("count", camera, f"How many in frame {number}?", "3"))
        questions.append(Question("nearer", camera, f"Which in frame {number}?", f"thing {number}"))
    return FrameLanguage(subtask, questions)


def _rows(root: Path) -> list[dict[str, Any]]:
    return LeRobotDataset("local/x", root=root).hf_dataset.data.to_pylist()


def test_a_demonstration_has_its_sub_tasks_in_every_frame(root: Path) -> None:
    subtasks = ["Reach."] * 4 + ["Lift."] * (FRAMES - 4)
    attempts = [(False, [_frame(n, subtask) for n, subtask in enumerate(subtasks)])] * EPISODES
    write_language(root, QuestionsConfig(), 5, attempts)
    for row in _rows(root):
        steps = [(step["style"], step["content"], step["timestamp"]) for step in row["language_persistent"]]
        assert steps == [("subtask", "Reach.", 0.0), ("subtask", "Lift.", pytest.approx(0.8))]


def test_no_sub_task_of_single_frames_is_too_common(root: Path) -> None:
    subtasks = ["Reach."] * (TOTAL - 4) + ["Lift."] * 4
    write_language(root, QuestionsConfig(), 5, [(True, [_frame(n, s) for n, s in enumerate(subtasks)])])
    written = [step["content"] for row in _rows(root) for step in row["language_persistent"]]
    assert written.count("Lift.") == 4 and 0 < written.count("Reach.") <= MOST_COMMON * len(written)


def test_questions_are_chosen_counted_and_balanced(root: Path) -> None:
    frames = [_frame(number, "Reach.") for number in range(TOTAL)]
    config = QuestionsConfig(kinds=["count", "nearer"], questions_per_image=2)
    report = write_language(root, config, 5, [(True, frames)])
    asked = [
        (row["index"], event["camera"], event["content"])
        for row in _rows(root)
        for event in row["language_events"]
        if event["role"] == "user"
    ]
    # All counts are the same, so that none can stay; the others have an answer for each frame.
    assert report["count"]["questions"] == 0
    assert report["nearer"] == {"questions": 2 * TOTAL, "most_common_answer": round(2 / (2 * TOTAL), 3)}
    assert sorted(asked) == sorted(
        (number, camera, f"Which in frame {number}?") for number in range(TOTAL) for camera in CAMERAS
    )


def test_without_the_kind_there_are_no_sub_tasks(root: Path) -> None:
    frames = [_frame(number, "Reach.") for number in range(TOTAL)]
    write_language(root, QuestionsConfig(kinds=["nearer"]), 5, [(False, frames)])
    assert not any(row["language_persistent"] for row in _rows(root))
