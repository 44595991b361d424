"""LeRobot's language columns: rows of questions and sub-tasks, and how they get into a dataset.

`LeRobotDataset.add_frame` can't write them; like `lerobot-annotate`, we add them to finished data files.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lerobot_gem.processing.language import EVENTS, PERSISTENT
from lerobot_gem.storage.data_files import add_columns, data_files

Row = dict[str, Any]

_TEXT = pa.string()
_EVENT_FIELDS = {
    "role": _TEXT,
    "content": _TEXT,
    "style": _TEXT,
    "camera": _TEXT,
    "tool_calls": pa.list_(_TEXT),
}
# LeRobot's order of fields. Its own type of `tool_calls` holds JSON, which pyarrow can't make from Python objects.
_TYPES = {
    EVENTS: pa.list_(pa.struct(_EVENT_FIELDS)),
    PERSISTENT: pa.list_(
        pa.struct(
            [
                *((key, _EVENT_FIELDS[key]) for key in ("role", "content", "style")),
                ("timestamp", pa.float32()),
                *((key, _EVENT_FIELDS[key]) for key in ("camera", "tool_calls")),
            ]
        )
    ),
}


def row(role: str, content: str, style: str, camera: str | None = None, **fields: Any) -> Row:
    """A row of either column; persistent ones need a `timestamp` in seconds."""
    return {"role": role, "content": content, "style": style, "camera": camera, "tool_calls": None, **fields}


def question_rows(exchanges: Iterable[tuple[str, str, str]]) -> list[Row]:
    """Event rows of (camera, question, answer), in the order in which LeRobot stores them: answers, then questions."""
    rows = []
    for camera, question, answer in exchanges:
        rows += [row("user", question, "vqa", camera), row("assistant", answer, "vqa", camera)]
    return sorted(rows, key=lambda one: (one["style"], one["role"], one["camera"]))


def subtask_rows(subtasks: Sequence[str], fps: int) -> list[Row]:
    """Persistent rows of an episode: one wherever the sub-task changes.

    Args:
        subtasks: Of each frame.
        fps: Frames per second.
    """
    return [
        row("assistant", text, "subtask", timestamp=frame / fps)
        for frame, text in enumerate(subtasks)
        if frame == 0 or text != subtasks[frame - 1]
    ]


def language_arrays(
    persistent: Sequence[Sequence[Row]], events: Sequence[Sequence[Row]]
) -> dict[str, pa.Array]:
    """The columns, from the rows of each frame."""
    return {
        PERSISTENT: pa.array(persistent, type=_TYPES[PERSISTENT]),
        EVENTS: pa.array(events, type=_TYPES[EVENTS]),
    }


def add_language_columns(
    root: Path, persistent: Sequence[Sequence[Row]], events: Sequence[Sequence[Row]]
) -> None:
    """Give a dataset language columns, in its data files and its metadata.

    Args:
        root: Folder of a finalised LeRobotDataset without them.
        persistent: Rows of the episode of each frame, by the frame's index.
        events: Rows of each frame.
    """
    from lerobot.datasets.io_utils import load_info, write_info
    from lerobot.datasets.language import language_feature_info

    def columns(table: pa.Table) -> dict[str, pa.Array]:
        indices = table["index"].to_pylist()
        return language_arrays([persistent[i] for i in indices], [events[i] for i in indices])

    info = load_info(root)
    info.features |= language_feature_info()
    for file in data_files(root):
        add_columns(file, file, columns, info.features)
    write_info(info, root)
