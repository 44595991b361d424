"""Kinds of questions, written and read again."""

from pathlib import Path

from lerobot_gem.storage.question_kinds import read_question_kinds, write_question_kinds


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    assert read_question_kinds(tmp_path) is None
    questions = [
        {"index": 3, "kind": "count", "camera": "front", "question": "How many?", "answer": "2"},
        {"index": 3, "kind": "nearer", "camera": "wrist", "question": "Which?", "answer": "milk"},
    ]
    write_question_kinds(tmp_path, questions)
    assert read_question_kinds(tmp_path) == {
        (3, "front", "How many?"): "count",
        (3, "wrist", "Which?"): "nearer",
    }


def test_the_file_of_version_0_1_0_is_read() -> None:
    kinds = read_question_kinds(Path(__file__).parents[1] / "artifacts" / "0.1.0" / "dataset")
    assert kinds is not None and len(kinds) == 22
