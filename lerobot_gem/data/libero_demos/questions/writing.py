"""Writes the questions and sub-tasks of a collection into its dataset."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from lerobot_gem.data.libero_demos.questions.kinds import Question
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.questions.recorder import FrameLanguage
from lerobot_gem.data.libero_demos.questions.selection import MOST_COMMON, Selection, balanced
from lerobot_gem.storage.language_columns import Row, add_language_columns, question_rows, subtask_rows
from lerobot_gem.storage.question_kinds import write_question_kinds

logger = logging.getLogger(__name__)


def write_language(
    root: Path, config: QuestionsConfig, fps: int, attempts: Iterable[tuple[bool, Sequence[FrameLanguage]]]
) -> dict[str, Any]:
    """Choose questions, and write them with the sub-tasks as LeRobot's language columns, and their kinds beside them.

    Args:
        root: Folder of a finalised LeRobotDataset.
        config: Which questions.
        fps: Frames per second.
        attempts: Whether its frames are unrelated, each an episode, or together a demonstration; and what can be said
            of each frame; in the dataset's order.

    Returns:
        For each kind the number of questions and the share of its most common answer.
    """
    selection, with_subtasks = Selection(config.questions_per_image), "subtask" in config.asked()
    persistent: list[list[Row]] = []
    alone: list[tuple[int, str]] = []  # frames that are episodes, and their sub-tasks
    for unrelated, frames in attempts:
        first = len(persistent)
        for index, frame in enumerate(frames, start=first):
            for _, candidates in groupby(frame.questions, key=lambda question: question.camera):
                selection.offer(index, list(candidates))
        subtasks = [frame.subtask for frame in frames] if with_subtasks else []
        if unrelated:
            alone += enumerate(subtasks, start=first)
        persistent += [[] if unrelated else subtask_rows(subtasks, fps)] * len(frames)
    # An episode's sub-tasks are what they are; of single frames there may be too many of a kind.
    for kept in balanced([subtask for _, subtask in alone]):
        index, subtask = alone[kept]
        persistent[index] = subtask_rows([subtask], fps)
    chosen = sorted(selection.balanced(), key=lambda one: one[0])
    if left_out := selection.num_chosen - len(chosen):
        logger.warning(
            f"{left_out} of {selection.num_chosen} questions were left out, since no answer may be more than {MOST_COMMON:.0%} of "
            "those of a kind: a few frames have few different answers. Collect more, or raise --qa.questions_per_image."
        )
    events: list[list[Row]] = [[] for _ in persistent]
    for index, group in groupby(chosen, key=lambda one: one[0]):
        events[index] = question_rows([(q.camera, q.question, q.answer) for _, q in group])
    add_language_columns(root, persistent, events)
    write_question_kinds(root, ({"index": index, **asdict(question)} for index, question in chosen))
    return {kind: _summary([q for _, q in chosen if q.kind == kind]) for kind in config.asked()}


def _summary(questions: Sequence[Question]) -> dict[str, Any]:
    answers = Counter(question.answer for question in questions)
    share = max(answers.values(), default=0) / max(len(questions), 1)
    return {"questions": len(questions), "most_common_answer": round(share, 3)}
