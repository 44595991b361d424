"""The kind of each question of a dataset, in `meta/questions.parquet`: LeRobot's language rows have no place for it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

QUESTIONS_FILE = "meta/questions.parquet"
_SCHEMA = pa.schema(
    [("index", pa.int64()), *((name, pa.string()) for name in ("kind", "camera", "question", "answer"))]
)


def write_question_kinds(root: Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Write the kinds of all questions of a dataset.

    Args:
        root: Folder of the dataset.
        questions: `index` of the frame in the whole dataset, `kind`, `camera`, `question` and `answer` of each.
    """
    pq.write_table(pa.Table.from_pylist(list(questions), _SCHEMA), root / QUESTIONS_FILE)


def read_question_kinds(root: Path) -> dict[tuple[int, str, str], str] | None:
    """The kinds of a dataset's questions.

    Args:
        root: Folder of the dataset.

    Returns:
        Index of the frame, camera and question -> kind; None if the dataset has no such file.
    """
    file = root / QUESTIONS_FILE
    if not file.is_file():
        return None
    rows = pq.read_table(file, columns=["index", "camera", "question", "kind"]).to_pylist()
    return {(row["index"], row["camera"], row["question"]): row["kind"] for row in rows}
