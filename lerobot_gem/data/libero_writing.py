"""Writes the data set of a collection from the files of its attempts."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_gem.data.language_columns import Row, add_language_columns, question_rows, subtask_rows
from lerobot_gem.data.libero_attempts import SCENES_PER_BATCH, Attempt, stored_frames, stored_language
from lerobot_gem.data.libero_demos_config import LiberoDemosConfig
from lerobot_gem.data.questions.configuration import QuestionsConfig
from lerobot_gem.data.questions.kinds import Question
from lerobot_gem.data.questions.selection import balanced, select
from lerobot_gem.data.single_frames import FrameBatch, append_frames
from lerobot_gem.simulation.scene import ACTION_DIM, CAMERAS, STATE_DIM

_QUESTIONS = pa.schema(
    [("index", pa.int64()), *((name, pa.string()) for name in ("kind", "camera", "question", "answer"))]
)


@dataclass(frozen=True)
class StoredAttempt:
    """A successful attempt on disk.

    Attributes:
        attempt: which one.
        folder: where `store_attempt` put it.
        instruction: the task's text.
    """

    attempt: Attempt
    folder: Path
    instruction: str


@dataclass(frozen=True)
class TaskReport:
    """How often the expert solved a task: successes of attempts."""

    task_id: int
    instruction: str
    successes: int
    attempts: int


def dataset_features(height: int, width: int, depth: bool) -> dict[str, dict[str, Any]]:
    """LeRobot features of the data set: keys and shapes of LeRobot's libero env, plus depth in metres."""
    features: dict[str, dict[str, Any]] = {}
    for camera in CAMERAS:
        key, names = f"observation.images.{camera}", ["height", "width", "channels"]
        features[key] = {"dtype": "image", "shape": (height, width, 3), "names": names}
        if depth:
            features[f"{key}_depth"] = {
                "dtype": "image",
                "shape": (height, width, 1),
                "names": names,
                "info": {"is_depth_map": True, "depth_unit": "m"},
            }
    state = [*(f"eef.{a}" for a in ("x", "y", "z")), *(f"eef.r{a}" for a in ("x", "y", "z"))]
    state += ["gripper.0", "gripper.1"]
    action = [*(f"delta.{a}" for a in ("x", "y", "z", "rx", "ry", "rz")), "gripper"]
    features["observation.state"] = {"dtype": "float32", "shape": (STATE_DIM,), "names": state}
    features["action"] = {"dtype": "float32", "shape": (ACTION_DIM,), "names": action}
    return features


def write_dataset(
    config: LiberoDemosConfig, stored: Sequence[StoredAttempt], reports: Sequence[TaskReport]
) -> None:
    """Write the data set to the collection's root, where it appears when it is complete.

    Args:
        config: of the collection.
        stored: its attempts, in the order of the data set: by task, demonstrations before scenes.
        reports: for `collection.json`.
    """
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from tqdm.auto import tqdm

    datasets.disable_progress_bars()  # one bar per episode otherwise
    partial = config.root.with_name(config.root.name + ".writing")
    shutil.rmtree(partial, ignore_errors=True)
    dataset: LeRobotDataset | None = LeRobotDataset.create(
        config.repo_id,
        fps=config.fps,
        features=dataset_features(config.image_size, config.image_size, config.depth),
        root=partial,
        robot_type="panda",
        use_videos=False,
    )
    with tqdm(stored, desc="writing") as progress:
        for scenes, group in groupby(progress, key=lambda one: one.attempt.scenes):
            if not scenes:
                dataset = dataset or LeRobotDataset.resume(config.repo_id, root=partial)
                for one in group:
                    data = _episode_data(one.folder, one.instruction, dataset)
                    dataset.save_episode(episode_data=data)
            if dataset is not None:
                dataset.finalize()
                dataset = None
            if scenes:
                append_frames(partial, (_batch(config, one) for one in group))
    report: dict[str, Any] = {"settings": config.content(), "tasks": [asdict(r) for r in reports]}
    if config.qa is not None:
        report["questions"] = _write_language(config, config.qa, partial, stored)
    (partial / "collection.json").write_text(json.dumps(report, indent=1))
    partial.rename(config.root)


def _batch(config: LiberoDemosConfig, one: StoredAttempt) -> FrameBatch:
    return FrameBatch(stored_frames(one.folder), one.instruction, _scenes_of(config, one.attempt))


def _scenes_of(config: LiberoDemosConfig, attempt: Attempt) -> int:
    """How many frames of a batch the data set takes: the last batch has more than are wanted."""
    return min(SCENES_PER_BATCH, config.scenes_per_task - attempt.number * SCENES_PER_BATCH)


def _write_language(
    config: LiberoDemosConfig, qa: QuestionsConfig, root: Path, stored: Sequence[StoredAttempt]
) -> dict[str, Any]:
    """Choose the questions and write them, and the sub-tasks.

    Returns:
        For each kind, the number of questions and the share of the most common answer.
    """
    images: list[list[Question]] = []
    frame_of: list[int] = []  # of each image
    persistent: list[list[Row]] = []
    scenes: list[tuple[int, str]] = []  # frames that stand alone, and their sub-tasks
    for one in stored:
        language = stored_language(one.folder)
        if one.attempt.scenes:
            language = language[: _scenes_of(config, one.attempt)]
            scenes += [(len(persistent) + index, frame.subtask) for index, frame in enumerate(language)]
        for index, frame in enumerate(language):
            for _, questions in groupby(frame.questions, key=lambda question: question.camera):
                images.append(list(questions))
                frame_of.append(len(persistent) + index)
        rows = subtask_rows([frame.subtask for frame in language], config.fps)
        persistent += [[] if one.attempt.scenes else rows for _ in language]
    chosen: list[list[Question]] = [[] for _ in persistent]
    for frame, questions in zip(frame_of, select(images, qa.questions_per_image), strict=True):
        chosen[frame] += questions
    if "subtask" in qa.asked():
        for kept in balanced([subtask for _, subtask in scenes]):
            frame, subtask = scenes[kept]
            persistent[frame] = subtask_rows([subtask], config.fps)
    else:
        persistent = [[] for _ in persistent]
    asked = [(frame, question) for frame, questions in enumerate(chosen) for question in questions]
    events = [question_rows([(q.camera, q.question, q.answer) for q in questions]) for questions in chosen]
    add_language_columns(root, persistent, events)
    # The rows don't say what kind of question they are.
    table = pa.Table.from_pylist(
        [{"index": frame, **asdict(question)} for frame, question in asked], _QUESTIONS
    )
    pq.write_table(table, root / "meta" / "questions.parquet")
    report = {}
    for kind in qa.asked():
        answers = Counter(question.answer for _, question in asked if question.kind == kind)
        most = max(answers.values(), default=0) / max(answers.total(), 1)
        report[kind] = {"questions": answers.total(), "most_common_answer": round(most, 3)}
    return report


def _episode_data(folder: Path, instruction: str, dataset: Any) -> dict[str, Any]:
    """An episode buffer as `LeRobotDataset.save_episode` takes it, with image files already encoded.

    Args:
        folder: of a finished attempt.
        instruction: the task's text.
        dataset: the LeRobotDataset that the episode goes to.
    """
    length = len(np.load(folder / "action.npy"))
    data: dict[str, Any] = {
        "size": length,
        "task": [instruction] * length,
        "episode_index": dataset.meta.total_episodes,
        "frame_index": np.arange(length),
        "timestamp": np.arange(length) / dataset.fps,
        "index": [],
        "task_index": [],
    }
    for key in dataset.meta.features:
        if key.startswith("observation.images."):
            data[key] = sorted(str(path) for path in (folder / key).iterdir())
        elif key not in data:
            data[key] = np.load(folder / f"{key}.npy")
    return data
