"""The questions of a dataset, one by one, with what is needed to ask and to score them.

They come from where training takes them (processing/language.py): the string column `messages` if the dataset has it,
else rows of style `vqa` in LeRobot's language columns. Each is asked alone, without the turns before it, which often
hold its answer: after a box around the mug, nobody needs to be asked where it is.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import chain, zip_longest
from typing import Any, Protocol

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.feature_utils import dataset_to_policy_features

from lerobot_gem.evaluation.vqa_scores import VqaRow, contains
from lerobot_gem.processing.answers import Box, form_of, parse, places
from lerobot_gem.processing.language import (
    EVENTS,
    MESSAGES,
    PERSISTENT,
    Message,
    check_cameras_of,
    conversations,
    messages_of_rows,
    parse_messages,
)
from lerobot_gem.storage.language_rows import LanguageTable
from lerobot_gem.storage.question_kinds import QUESTIONS_FILE, read_question_kinds

# Words of a question that name no object.
# fmt: off
_FILLERS = {
    "a", "an", "and", "answer", "are", "around", "at", "bbox_2d", "be", "bounding", "box", "by", "camera",
    "can", "coordinates", "draw", "find", "for", "frame", "from", "give", "grasp", "grip", "gripper",
    "image", "in", "is", "it", "its", "json", "locate", "mark", "object", "of", "on", "one", "part",
    "picture", "please", "point", "point_2d", "report", "robot", "seen", "should", "show", "single", "that",
    "the", "this", "to", "view", "visible", "what", "where", "which", "with", "you"
}
# fmt: on


@dataclass(frozen=True)
class VqaRows:
    """The questions of a dataset.

    Attributes:
        rows: In the order of the frames.
        skipped: Reason -> how many could not be asked.
    """

    rows: list[VqaRow]
    skipped: Counter[str]


def read_rows(dataset: LeRobotDataset) -> VqaRows:
    """All questions of a dataset's frames.

    The kind of a language row is what `meta/questions.parquet` says, if the dataset has it. A message of the column
    `messages` may name its own (`"kind": "navigation"`). Else the kind is the form of the right answer.

    Raises:
        ValueError: There are none, they are malformed or name a camera that the dataset lacks, or
            `meta/questions.parquet` lacks one of them.
    """
    meta = dataset.meta
    cameras = [camera for camera in meta.camera_keys if camera not in meta.depth_keys]
    shapes = {name: feature.shape for name, feature in dataset_to_policy_features(meta.features).items()}
    episodes = dataset.hf_dataset.data.column("episode_index").to_pylist()
    rows: list[VqaRow] = []
    skipped: Counter[str] = Counter()
    for (index, messages), episode in zip(_messages(dataset), episodes, strict=True):
        in_frame = []
        # What names no camera is asked about the images of the first conversation, as in training.
        unnamed = [cameras[position] for position in conversations(messages, cameras)[0].cameras]
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            camera = question.get("camera")
            shown = unnamed if camera is None else [camera]
            height, width = shapes[shown[0]][-2:]
            reason = _unfit(question, answer, camera in meta.depth_keys, (width, height))
            if reason:
                skipped[reason] += 1
                continue
            text, right = question["content"], answer["content"]
            kind = question.get("kind") or form_of(right)
            in_frame.append(VqaRow(index, episode, tuple(shown), text, right, kind, (width, height)))
        rows += [replace(row, region=_region(row, in_frame)) for row in in_frame]
    if not rows:
        raise ValueError(
            f"{meta.repo_id!r} has no questions that can be asked: expected rows of style 'vqa' in its language columns, "
            f"or a string column 'messages'. {_what_there_is(dataset, skipped)} Collect some in simulation "
            "(lerobot-gem-libero-demos --qa), annotate the dataset (lerobot-annotate), or import one that has questions "
            "(lerobot-gem-import)."
        )
    return VqaRows(rows, skipped)


class _OfAKind(Protocol):
    @property
    def kind(self) -> str:
        """Kind of the question."""


def select_rows[Row: _OfAKind](
    rows: Sequence[Row], *, kinds: Sequence[str] | None, max_rows: int | None, seed: int
) -> list[Row]:
    """Some of the questions, in their order.

    Args:
        rows: To choose from.
        kinds: Those wanted; None for all.
        max_rows: Largest number, spread evenly over the kinds as far as each has enough; None for all.
        seed: Of the choice.

    Raises:
        ValueError: There is no question of one of `kinds`.
    """
    found = Counter(row.kind for row in rows)
    unknown = [kind for kind in kinds or () if kind not in found]
    if unknown:
        raise ValueError(
            f"kinds={unknown}: there are no such questions; expected some of "
            f"{', '.join(f'{kind!r} ({n})' for kind, n in sorted(found.items()))}."
        )
    by_kind: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        if not kinds or row.kind in kinds:
            by_kind[row.kind].append(position)
    for kind, positions in by_kind.items():
        random.Random(f"{seed} {kind}").shuffle(positions)
    one_of_each_in_turn = chain.from_iterable(zip_longest(*(by_kind[kind] for kind in sorted(by_kind))))
    chosen = [position for position in one_of_each_in_turn if position is not None][:max_rows]
    return [rows[position] for position in sorted(chosen)]


def _messages(dataset: LeRobotDataset) -> Iterator[tuple[int, list[Message]]]:
    """Index and messages of each frame, in order; only questions, no sub-tasks or plans."""
    meta = dataset.meta
    columns = dataset.hf_dataset.data
    indices = columns.column("index").to_pylist()
    if MESSAGES in meta.features:
        for index, text in zip(indices, columns.column(MESSAGES).to_pylist(), strict=True):
            messages = parse_messages(text)
            check_cameras_of(messages, meta.camera_keys, f"the column 'messages' of {meta.repo_id!r}")
            yield index, messages
        return
    table = LanguageTable(meta) if meta.has_language_columns else None
    kinds = read_question_kinds(meta.root)
    for index in indices:
        _, events = table.rows(index) if table else ([], [])
        messages = messages_of_rows([], events, timestamp=0, task=None, index=index)
        if kinds is not None:
            _name_kinds(messages, kinds, index, meta.repo_id)
        yield index, messages


def _name_kinds(
    messages: list[Message], kinds: Mapping[tuple[int, str, str], str], index: int, repo_id: str
) -> None:
    """Give the questions of a frame their kinds."""
    for question in messages[::2]:
        key = index, question["camera"], question["content"]
        if key not in kinds:
            raise ValueError(
                f"{QUESTIONS_FILE} of {repo_id!r} lacks the question {question['content']!r} about {question['camera']} in "
                f"frame {index}: expected the kind of each question of the language columns. If the questions have changed, "
                "write the file anew, or remove it: without it, the kind of a question is the form of its answer."
            )
        question["kind"] = kinds[key]


def _unfit(question: Message, answer: Message, about_depth: bool, size: tuple[int, int]) -> str | None:
    """Why a question can't be asked or scored, if it can't."""
    if about_depth:
        return "about a depth camera"
    if not (question["content"] or "").strip() or not (answer["content"] or "").strip():
        return "empty question or answer"
    boxes: list[Box] = parse(answer["content"], "box", size) or []
    if any(right <= left or bottom <= top for left, top, right, bottom in boxes):
        return "right answer is a box without area"
    return None


def _region(row: VqaRow, in_frame: Sequence[VqaRow]) -> Box | None:
    """The box of the object that a point is asked on, if a question about the same image asks for it.

    It is the box whose question or label shares the longest name with the point's question, if it holds the point.
    """
    if row.form != "point":
        return None
    point = parse(row.answer, "point", row.size)
    longest, region = 0, None
    for other in in_frame:
        if other.form == "box" and other.cameras == row.cameras:
            name = next((p.label for p in places(other.answer, other.size) if p.label), other.question)
            length = shared_name(row.question, name)
            if length > longest:
                boxes = parse(other.answer, "box", other.size)
                longest, region = length, next((box for box in boxes if contains(box, point)), None)
    return region


def shared_name(first: str, second: str) -> int:
    """How many words long the longest name is that two texts share, without articles and the like."""
    names = [
        [word for word in re.findall(r"\w+", text.casefold()) if word not in _FILLERS]
        for text in (first, second)
    ]
    return SequenceMatcher(None, names[0], names[1], autojunk=False).find_longest_match().size


def _what_there_is(dataset: LeRobotDataset, skipped: Counter[str]) -> str:
    meta = dataset.meta
    if skipped:
        return f"It has some that were skipped: {dict(skipped)}."
    if MESSAGES in meta.features:
        return "Its column 'messages' is empty."
    if not meta.has_language_columns:
        return f"It has neither; its features are {sorted(meta.features)}."
    styles: Counter[str] = Counter()
    columns: Any = dataset.hf_dataset.data
    for name in (PERSISTENT, EVENTS):
        if name in meta.features:
            for rows in columns.column(name).to_pylist():
                styles.update(f"{row['style']!r} in {name}" for row in rows or [])
    counts = ", ".join(f"{style}: {n}" for style, n in styles.items()) or "none"
    return f"Its language rows, by style and counted over all frames: {counts}."
