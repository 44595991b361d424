"""Language columns as LeRobot and our own reader find them."""

from pathlib import Path

import datasets
import pytest
from lerobot.datasets.language_render import active_at, emitted_at
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.processing.language import messages_of_rows
from lerobot_gem.storage.language_columns import add_language_columns, question_rows, subtask_rows
from lerobot_gem.storage.language_rows import LanguageTable
from tests.conftest import CAMERAS, EPISODES, FRAMES, write_dataset

FRONT, WRIST = CAMERAS


def test_a_subtask_begins_where_it_changes() -> None:
    rows = subtask_rows(["reach", "reach", "grasp", "reach"], 10)
    assert [(row["timestamp"], row["content"]) for row in rows] == [
        (0, "reach"),
        (0.2, "grasp"),
        (0.3, "reach"),
    ]
    assert {row["style"] for row in rows} == {"subtask"} and {row["camera"] for row in rows} == {None}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("columns") / "set")
    steps = ["reach"] * 4 + ["grasp"] * (FRAMES - 4)
    events: list[list[dict]] = [[] for _ in range(EPISODES * FRAMES)]
    events[13] = question_rows(
        [(WRIST, "How many?", "3"), (FRONT, "Where?", "left"), (FRONT, "Which?", "milk")]
    )
    events[14] = question_rows([(WRIST, "How many?", "2")])
    persistent = [subtask_rows(steps, 5) for _ in range(EPISODES) for _ in range(FRAMES)]
    add_language_columns(root, persistent, events)
    return root


def test_our_reader_pairs_questions_and_answers(root: Path) -> None:
    dataset = LeRobotDataset("local/noise", root=root)
    assert dataset.meta.has_language_columns and len(dataset) == EPISODES * FRAMES
    table = LanguageTable(dataset.meta)
    messages = messages_of_rows(*table.rows(13), timestamp=3 / 5, task="do it", index=0)
    assert [m["content"] for m in messages[:6]] == ["Where?", "left", "Which?", "milk", "How many?", "3"]
    assert [m.get("camera") for m in messages[:6:2]] == [FRONT, FRONT, WRIST]
    assert messages[-1]["content"] == "reach"
    assert table.rows(12)[1] == []


def test_lerobots_own_resolvers_read_them(root: Path) -> None:
    item = LeRobotDataset("local/noise", root=root)[14]
    rows = {"persistent": item["language_persistent"], "events": item["language_events"]}
    time = float(item["timestamp"])
    question = emitted_at(time, **rows, style="vqa", role="user", camera=WRIST)
    assert question is not None and question["content"] == "How many?"
    active = active_at(time, persistent=rows["persistent"], style="subtask")
    assert active is not None and active["content"] == "grasp"


def test_files_tell_their_features_to_datasets(root: Path) -> None:
    [file] = (root / "data").glob("*/*.parquet")
    found = datasets.Dataset.from_parquet(str(file)).features
    assert isinstance(found[FRONT], datasets.Image) and {"language_events", "language_persistent"} <= set(
        found
    )
