"""Which questions a dataset has, what they are asked about, and which are chosen."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lerobot_gem.evaluation.vqa_questions import read_rows, select_rows, shared_name
from lerobot_gem.storage.language_columns import row
from lerobot_gem.storage.question_kinds import QUESTIONS_FILE, write_question_kinds
from tests.conftest import CAMERAS, FRAMES, add_language_rows, vqa, write_dataset

FRONT, WRIST = CAMERAS
MUG_POINT, MUG_BOX = '{"point_2d": [200, 200]}', '{"bbox_2d": [100, 100, 300, 300]}'


def read(root: Path, episodes: list[int] | None = None):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return read_rows(LeRobotDataset("local/noise", root=root, episodes=episodes))


def with_events(tmp_path: Path, events: dict[int, list[dict]], **options) -> Path:
    return add_language_rows(write_dataset(tmp_path / "data", **options), [], events)


def exchange(question: str, answer: str, **fields) -> list[dict]:
    return [
        {"role": "user", "content": question, **fields},
        {"role": "assistant", "content": answer},
    ]


def test_language_rows_are_asked_about_their_camera(tmp_path):
    events = {
        2: [*vqa("How many mugs are there?", "2"), *vqa("Is it left?", "yes", WRIST)],
        FRAMES + 1: vqa("How many mugs are there?", "3"),
    }
    found = read(with_events(tmp_path, events))
    assert [(row.index, row.episode, row.cameras, row.answer, row.kind) for row in found.rows] == [
        (2, 0, (FRONT,), "2", "number"),
        (2, 0, (WRIST,), "yes", "yes_no"),
        (FRAMES + 1, 1, (FRONT,), "3", "number"),
    ]
    assert not found.skipped
    [only] = read(tmp_path / "data", episodes=[1]).rows
    assert only == found.rows[2]


def simulated(tmp_path: Path) -> tuple[Path, list[dict]]:
    """A copy of a dataset with questions of lerobot-gem-libero-demos, and its table of their kinds."""
    root = tmp_path / "data"
    shutil.copytree(Path(__file__).parents[1] / "artifacts" / "0.1.0" / "dataset", root)
    return root, pq.read_table(root / QUESTIONS_FILE).to_pylist()


def test_kinds_are_those_of_the_table_beside_the_dataset(tmp_path):
    root, table = simulated(tmp_path)
    kinds = {(row["index"], row["camera"], row["question"]): row["kind"] for row in table}
    rows = read(root).rows
    assert len(rows) == len(kinds) == 22
    assert all(row.kind == kinds[row.index, row.cameras[0], row.question] for row in rows)
    assert {"affordance", "gripper_distance", "next_subtask"} < {row.kind for row in rows}

    (root / QUESTIONS_FILE).unlink()
    assert {row.kind for row in read(root).rows} == {"point", "box", "number", "text"}


def test_a_question_that_the_table_lacks_is_named(tmp_path):
    root, table = simulated(tmp_path)
    write_question_kinds(root, table[1:])
    with pytest.raises(ValueError, match=r"questions.parquet of .* 'Locate the salad dressing .* in frame 0"):
        read(root)


def test_messages_are_asked_one_by_one_about_all_images_or_the_one_they_name(tmp_path):
    messages = [
        *exchange("What is it?", "A mug."),
        *exchange("How far is it?", "0.3", camera=None, kind="absolute distance"),
    ]
    found = read(write_dataset(tmp_path / "data", messages=json.dumps(messages)))
    assert len(found.rows) == 2 * 3 * FRAMES
    first, second, *_ = found.rows
    assert (first.question, first.kind, first.cameras) == ("What is it?", "text", CAMERAS)
    assert (second.question, second.kind, second.cameras) == ("How far is it?", "absolute distance", CAMERAS)

    # As in training, what names no camera is asked about the images that have no questions of their own.
    grounded = [*messages, *exchange("Where?", "There.", camera=FRONT)]
    found = read(write_dataset(tmp_path / "grounded", messages=json.dumps(grounded)))
    assert [row.cameras for row in found.rows[:3]] == [(WRIST,), (WRIST,), (FRONT,)]


def test_points_are_linked_to_the_box_of_their_object_in_the_same_image(tmp_path):
    plate = '{"bbox_2d": [0, 0, 900, 900]}'
    events = {
        0: [
            *vqa("Point to the red mug.", MUG_POINT),
            *vqa("Give the box of the plate.", plate),
            *vqa("Give the box of the red mug.", MUG_BOX),
            *vqa("Point to the black bowl.", MUG_POINT),
            *vqa("Point to the red mug.", MUG_POINT, WRIST),
        ],
        1: [
            *vqa("Point to the red mug.", '{"point_2d": [400, 200]}'),
            *vqa("Give the box of the red mug.", MUG_BOX),
        ],
        2: [
            *vqa("Where should I grasp the mug?", MUG_POINT),
            *vqa("Which is it?", '{"bbox_2d": [1, 1, 250, 250], "label": "mug"}'),
        ],
    }
    regions = {
        (row.index, row.question, row.cameras[0]): row.region
        for row in read(with_events(tmp_path, events)).rows
        if row.form == "point"
    }
    assert regions == {
        (0, "Point to the red mug.", FRONT): (100, 100, 300, 300),
        (0, "Point to the black bowl.", FRONT): None,  # no box is about it
        (0, "Point to the red mug.", WRIST): None,  # the box is one of the other camera
        (1, "Point to the red mug.", FRONT): None,  # the right point is outside: not the same mug
        (2, "Where should I grasp the mug?", FRONT): (1, 1, 250, 250),
    }


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [
        ("Point to the alphabet soup.", "Draw a box around the alphabet soup, please", 2),
        ("Point to the bowl on the plate.", "Where is the bowl on the plate?", 2),
        ("Point to the alphabet soup.", "Where is the tomato soup in the image?", 1),
        ("Point to the mug in the image.", "Where is the plate in the image?", 0),
        ("Point to the mug.", "", 0),
        (
            "Where should the gripper grasp the milk? Answer in JSON with point_2d.",
            "Draw a box around what can be seen of the butter. Answer in JSON with bbox_2d.",
            0,
        ),
    ],
)
def test_names_that_questions_share(first, second, length):
    assert shared_name(first, second) == length


def test_what_cannot_be_asked_or_scored_is_skipped_and_counted(tmp_path):
    events = {
        0: [
            *vqa("How deep?", "3", f"{FRONT}_depth"),
            *vqa("Box it.", '{"bbox_2d": [5, 5, 5, 9]}'),
            *vqa("Box it.", '{"bbox_2d": [9, 9, 5, 5]}'),
            *vqa("What is it?", " "),
            *vqa("", "A mug."),
            *vqa("What is it?", "A mug."),
        ]
    }
    found = read(with_events(tmp_path, events, depth=True))
    assert [row.answer for row in found.rows] == ["A mug."]
    assert found.skipped == {
        "about a depth camera": 1,
        "right answer is a box without area": 2,
        "empty question or answer": 2,
    }


def test_a_dataset_without_questions_says_what_it_has_and_how_to_get_some(tmp_path):
    remedy = r".*lerobot-gem-libero-demos --qa.*lerobot-annotate.*lerobot-gem-import"
    bare = write_dataset(tmp_path / "bare")
    with pytest.raises(
        ValueError, match=r"'local/noise' has no questions.* neither; its features are" + remedy
    ):
        read(bare)

    subtask = row("assistant", "reach", "subtask", timestamp=0.0)
    root = add_language_rows(write_dataset(tmp_path / "subtasks"), [subtask], {})
    with pytest.raises(ValueError, match=r"'subtask' in language_persistent: 30\." + remedy):
        read(root)

    root = with_events(tmp_path / "depth", {0: vqa("How deep?", "3", f"{FRONT}_depth")}, depth=True)
    with pytest.raises(ValueError, match=r"skipped: {'about a depth camera': 1}\." + remedy):
        read(root)

    root = write_dataset(tmp_path / "empty", messages="[]")
    with pytest.raises(ValueError, match=r"column 'messages' is empty\." + remedy):
        read(root)


def test_unknown_cameras_are_named(tmp_path):
    messages = json.dumps(exchange("Where?", "There.", camera="observation.images.top"))
    root = write_dataset(tmp_path / "data", messages=messages)
    with pytest.raises(ValueError, match=r"\['observation.images.top'\] in the column 'messages'"):
        read(root)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    events = {
        frame: [
            *vqa("How many are there?", str(frame)),
            *(vqa("Is it left?", "yes") if frame % 3 == 0 else []),
            *(vqa("What is it?", "A mug.") if frame == 5 else []),
        ]
        for frame in range(3 * FRAMES)
    }
    return read(with_events(tmp_path_factory.mktemp("rows"), events)).rows


def test_the_choice_is_seeded_and_even_over_kinds_as_far_as_there_are_enough(rows):
    assert Counter(row.kind for row in rows) == {"number": 30, "yes_no": 10, "text": 1}
    chosen = select_rows(rows, kinds=None, max_rows=13, seed=1)
    assert Counter(row.kind for row in chosen) == {"number": 6, "yes_no": 6, "text": 1}
    assert chosen == select_rows(rows, kinds=None, max_rows=13, seed=1)
    assert chosen != select_rows(rows, kinds=None, max_rows=13, seed=2)
    assert [row.index for row in chosen] == sorted(row.index for row in chosen)
    assert (
        select_rows(rows, kinds=None, max_rows=None, seed=1)
        == rows
        == select_rows(rows, kinds=None, max_rows=99, seed=1)
    )


def test_kinds_can_be_chosen_and_unknown_ones_are_named(rows):
    chosen = select_rows(rows, kinds=["yes_no", "text"], max_rows=4, seed=1)
    assert Counter(row.kind for row in chosen) == {"yes_no": 3, "text": 1}
    with pytest.raises(ValueError, match=r"\['box'\].*'number' \(30\), 'text' \(1\), 'yes_no' \(10\)"):
        select_rows(rows, kinds=["number", "box"], max_rows=None, seed=1)
