"""Questions and answers about a frame: where they come from, and which images each is asked about.

A frame's text is a list of messages, `{"role": "user" | "assistant", "content": str, "camera": key or None}`. It
comes from

* the dataset's string column `messages`, which holds such a list as JSON (datasets of questions), or
* LeRobot's language columns (robot episodes): `vqa` rows, and the sub-task and plan that are active, or
* where a frame has neither, the task sentence, as the answer to a planning question.

LeRobot 0.6.1 drops the language columns twice on their way from the dataset to the policy, in its collate function and
in its batch processor; later versions deliver them. `LanguageTable` (storage/language_rows.py) reads them by frame index
instead, in the main process, whatever the DataLoader's workers do.

**Grounding.** A question that names a camera is asked about that camera's image alone, as LeRobot's own recipes do it and
as such a question is asked at inference. The remaining images share one more conversation with the questions that
name no camera. So each image is shown exactly once, has one vision span, and one depth map.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, Any]
Row = Mapping[str, Any]

MESSAGES = "messages"
PERSISTENT, EVENTS = "language_persistent", "language_events"

# Planning questions (the paper's spatiotemporal planning); the wording is this project's own. A frame's index picks one.
TASK_QUESTIONS = (
    "What should the robot do?",
    "Which task is the robot here to do?",
    "Give the robot's instruction for this scene.",
)
SUBTASK_QUESTIONS = (
    "The task is: {task} What should the robot do now?",
    "The task is: {task} Which step comes next?",
)
PLAN_QUESTIONS = (
    "The task is: {task} What is the plan?",
    "How should the robot proceed to do this: {task}",
)
_VQA = "vqa"
_QUESTIONS = {"subtask": SUBTASK_QUESTIONS, "plan": PLAN_QUESTIONS}
# Of the language rows, those that are read; LeRobot has more.
STYLES = (_VQA, *_QUESTIONS)


@dataclass
class Conversation:
    """Questions and answers about some of a frame's images.

    Attributes:
        cameras: Position of each image's camera in the policy's list.
        exchanges: Question and answer, in order.
    """

    cameras: list[int]
    exchanges: list[tuple[str, str]] = field(default_factory=list)


def parse_messages(text: str) -> list[Message]:
    """The messages of one `messages` entry.

    Raises:
        ValueError: Not JSON, or not a list of alternating user and assistant messages of text.
    """
    expected = (
        'expected JSON like [{"role": "user", "content": "Where is it?", "camera": null}, '
        '{"role": "assistant", "content": "On the left."}], text alone (images lead the first question), turn by turn'
    )
    try:
        messages = json.loads(text)
        roles = [message["role"] for message in messages]
        contents = [message["content"] for message in messages]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The column 'messages' holds {str(text)[:200]!r}: {expected}.") from error
    if roles != ["user", "assistant"] * (len(roles) // 2) or any(
        not isinstance(content, str) or "<image>" in content for content in contents
    ):
        raise ValueError(f"The column 'messages' holds {text[:200]!r}: {expected}.")
    return messages


def messages_of_rows(
    persistent: Iterable[Row], events: Iterable[Row], timestamp: float, task: str | None, index: int
) -> list[Message]:
    """The messages of one frame from its language rows; empty if no row is of use.

    Args:
        persistent: Rows of the episode; of style "subtask" and "plan" the last one at or before `timestamp` counts.
        events: Rows of this frame; those of style "vqa" count.
        timestamp: Of the frame, in seconds.
        task: The task sentence, for the questions about sub-task and plan.
        index: Of the frame; picks among question templates.
    """
    messages = _vqa_messages(events)
    for style, templates in _QUESTIONS.items():
        of_style = [row for row in persistent if row["style"] == style]
        for row in of_style:
            _check_row(row, needs_time=True)
        active = [row for row in of_style if row["timestamp"] <= timestamp + 1e-4]
        if active:
            row = max(active, key=lambda row: row["timestamp"])
            question = _pick(templates, index).format(task=sentence(task or "")).strip()
            messages += _exchange(question, row["content"])
    return messages


def messages_of_task(task: str, index: int) -> list[Message]:
    """The task sentence as a planning answer."""
    return _exchange(_pick(TASK_QUESTIONS, index), sentence(task))


def conversations(messages: Sequence[Message], cameras: Sequence[str]) -> list[Conversation]:
    """Sort a frame's messages by the images that they are about.

    Args:
        messages: Alternating questions and answers; a question's "camera" counts for its answer too. Questions about
            cameras that are not in `cameras` are left out.
        cameras: Observation keys, in prompt order.

    Returns:
        Conversations that show each camera once. At least one.
    """
    grounded: dict[int, Conversation] = {}
    common: list[tuple[str, str]] = []
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        exchange = question["content"], answer["content"]
        camera = question.get("camera")
        if camera is None:
            common.append(exchange)
        elif camera in cameras:
            position = cameras.index(camera)
            grounded.setdefault(position, Conversation([position])).exchanges.append(exchange)
    rest = [position for position in range(len(cameras)) if position not in grounded]
    if rest:
        return [Conversation(rest, common), *grounded.values()]
    # Every camera has questions of its own: what is asked about none of them goes to the first.
    first, *others = (grounded[position] for position in range(len(cameras)))
    first.exchanges += common
    return [first, *others]


class LanguageRows(Protocol):
    """The language rows of a dataset, by frame index (`storage/language_rows.py`)."""

    def rows(self, index: int, known: Mapping[str, Any] | None = None) -> tuple[list[Row], list[Row]]:
        """Persistent and event rows of a frame, of which more is known than its index."""


@dataclass(frozen=True)
class BoundLanguage:
    """What a dataset says to the step that reads its language.

    Attributes:
        table: Its language rows, if it has any.
        cameras: Observation keys of its cameras.
    """

    table: LanguageRows | None
    cameras: Sequence[str]


def check_cameras_of(messages: Iterable[Message], known: Sequence[str], where: str) -> None:
    """Raise a ValueError if messages name a camera that is not `known`."""
    check_cameras((message["camera"] for message in messages if message.get("camera")), known, where)


def check_cameras(named: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raise a ValueError if a camera that is `named` is not `known`."""
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise ValueError(
            f"Unknown camera(s) {unknown} in {where}: expected some of {sorted(known)}, or null. Correct the rows, or add "
            "the camera to the dataset."
        )


def _vqa_messages(events: Iterable[Row]) -> list[Message]:
    """Pair the questions with the answers about the same camera, in order."""
    messages: list[Message] = []
    rows = [row for row in events if row["style"] == _VQA]
    for row in rows:
        _check_row(row)
        if row["role"] not in ("user", "assistant"):
            raise ValueError(
                f"A language row of style 'vqa' has role={row['role']!r}: expected 'user' for a question, 'assistant' for its answer. Correct "
                "the row, or remove it."
            )
    for camera in dict.fromkeys(row["camera"] for row in rows):
        questions, answers = (
            [row["content"] for row in rows if (row["role"], row["camera"]) == (role, camera)]
            for role in ("user", "assistant")
        )
        if len(questions) != len(answers):
            raise ValueError(
                f"A frame has {len(questions)} vqa question(s) and {len(answers)} answer(s) about {camera}: expected one "
                f"assistant row for each user row. The questions are {questions}."
            )
        for question, answer in zip(questions, answers, strict=True):
            messages += _exchange(question, answer, camera)
    return messages


def _check_row(row: Row, *, needs_time: bool = False) -> None:
    """Raise a ValueError if a language row has no text, or, where it is needed, no time."""
    if not isinstance(row["content"], str):
        raise ValueError(
            f"A language row of style {row['style']!r} has content={row['content']!r}: expected text. Correct the row, or remove it."
        )
    time = row.get("timestamp")
    if needs_time and (time is None or not math.isfinite(time)):
        raise ValueError(
            f"A language row of style {row['style']!r} has timestamp={time}: expected seconds since the beginning of its episode. Correct "
            "the row, or remove it."
        )


def _exchange(question: str, answer: str, camera: str | None = None) -> list[Message]:
    return [
        {"role": "user", "content": question, "camera": camera},
        {"role": "assistant", "content": answer},
    ]


def _pick(templates: Sequence[str], index: int) -> str:
    return templates[index % len(templates)]


def sentence(text: str) -> str:
    """With a capital and a full stop, so that answers end alike whatever the dataset's habit."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?" else ".")
