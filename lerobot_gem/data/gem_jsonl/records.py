r"""Records of the released GEM-250K format, and of LLaVA's: read, checked, turned into messages, and written.

A record is a JSON object, one on each line of a `.jsonl` (GEM-250K) or all in the one array of a `.json` (LLaVA):

    {"id": "7", "image": "kitchen/7.jpg", "conversations": [
        {"from": "human", "value": "<image>\\nWhere is the cup?"}, {"from": "gpt", "value": "On the table."}]}

`image` is a path, from the folder of the file or from `images` in it, or a list of them; a record of a clip has `video`
and `<video>`. Other trainers write the same under other names, which are read as well: `images` and `videos` (Qwen-VL),
`messages` of `role` and `content` (LLaMA-Factory, ms-swift), and a system turn at the beginning, which becomes the field
`system`, since GEM's prompt has no place for it. Depth is a PNG in the folder `depth`, under the image's base name (the
release's rule) or its whole path.

In a dataset the images lead the first question, without placeholders (processing/language.py). Records whose
placeholders all stand before the first question's text, or all behind it, say the same and are taken; LLaVA's own
training moves its placeholder likewise. Others are refused: words such as "the first image" would point nowhere.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import ijson

from lerobot_gem.data.gem_jsonl.limits import (
    DEEPEST_NESTING,
    LONGEST_TEXT,
    MOST_RECORD_BYTES,
    is_too_deep,
)
from lerobot_gem.processing.language import Message

JsonObject = dict[str, Any]

# Where a message list keeps what only the record knows; see `GemRecord.messages`.
RECORD = "record"
DEPTH_FOLDER = "depth"

# GEM's and LLaVA's names first: those are written where a record is new.
_ROLES = {"human": "user", "gpt": "assistant"}
_OTHER_ROLES = {"user": "user", "assistant": "assistant", "system": "system"}
_IMAGE_KEYS, _VIDEO_KEYS = ("image", "images"), ("video", "videos")
_CONVERSATIONS = ("conversations", "messages")
_ROLE_KEYS, _TEXT_KEYS = ("from", "role"), ("value", "content")
_SYSTEM = "system"
# For messages.
_TURNS = {
    "user": "{'from': 'human', 'value': ...} or {'role': 'user', 'content': ...}",
    "assistant": "{'from': 'gpt', 'value': ...} or {'role': 'assistant', 'content': ...}",
}
# Folder that many trainers keep images in, beside the file of records.
_IMAGE_FOLDER = "images"
_PLACEHOLDERS = ("<image>", "<video>")
_PLACEHOLDER = re.compile("|".join(_PLACEHOLDERS))
_LEADING = re.compile(r"(?:\s*(?:<image>|<video>))+\s*")


class RecordError(ValueError):
    """A record that can't be used.

    Args:
        reason: A few words, the same for all records with this fault, which are counted by it.
        detail: What is wrong with this record.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class GemRecord:
    """One record.

    Attributes:
        images: Paths as written; empty for a clip.
        video: Path of a clip as written, or None.
        turns: Messages without placeholders and camera: user, assistant, user, ...
        before: The placeholders before the first question's text, with the white space around them.
        after: The placeholders behind it, likewise; `before` or `after` is empty.
        fields: Everything but the conversations, under GEM's names.
    """

    images: tuple[str, ...]
    video: str | None
    turns: tuple[Message, ...]
    before: str
    after: str
    fields: JsonObject

    @classmethod
    def parse(cls, record: Any) -> Self:
        """Check a record.

        Raises:
            RecordError: It is no record, its turns don't alternate, or it isn't clear which images it shows.
        """
        if not isinstance(record, dict):
            raise RecordError("not a record", f"expected a JSON object, got {str(record)[:80]!r}")
        record = _gem_names(record)
        images, video = _media(record)
        system, turns = _turns(record.get("conversations"))
        _check_texts([system, *(turn["content"] for turn in turns)])
        before, after = _take_placeholders(turns, images=len(images), videos=int(video is not None))
        fields = {key: value for key, value in record.items() if key != "conversations"}
        if system:
            fields[_SYSTEM] = system
        return cls(images, video, tuple(turns), before, after, fields)

    @property
    def has_system_turn(self) -> bool:
        """Whether it has instructions that no prompt shows."""
        return bool(self.fields.get(_SYSTEM))

    def to_json(self) -> str:
        """The record as text, to be parsed no second time."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote."""
        stored = json.loads(text)
        return cls(**stored | {key: tuple(stored[key]) for key in ("images", "turns")})

    def messages(self, camera: str | None, depth: Sequence[JsonObject | None] = ()) -> list[Message]:
        """The record as the messages of a frame.

        Args:
            camera: Key of the camera that every question is about; None if each is about all cameras.
            depth: The depth map of each image, {"file": path, "bits": 8 or 16}; None for an image without one.

        Returns:
            Messages for the column `messages`. The first one carries under `RECORD` what `record_of` needs to write the
            record again; nothing else reads it.
        """
        messages = [
            {**turn, "camera": camera} if turn["role"] == "user" else dict(turn) for turn in self.turns
        ]
        kept = {"fields": self.fields, "before": self.before, "after": self.after, "depth": list(depth)}
        return [{**messages[0], RECORD: kept}, *messages[1:]]


def record_of(messages: Sequence[Message], images: Sequence[str]) -> JsonObject:
    """The record that some messages came from, or a new one.

    Args:
        messages: Alternating messages, from `GemRecord.messages` or from anywhere else.
        images: Paths of the images that they are about. The images of a clip take its place.
    """
    count = len(images)
    kept = messages[0].get(RECORD) or {"fields": {}, "before": "<image>\n" * count, "after": ""}
    fields = {key: value for key, value in kept["fields"].items() if key != "video"}
    several = count > 1 or isinstance(fields.get("image"), list)
    fields["image"] = list(images) if several else images[0]
    names = {role: name for name, role in _ROLES.items()}
    conversations = []
    for message in messages:
        turn = {key: value for key, value in message.items() if key not in ("role", "camera", RECORD)}
        conversations.append({"from": names[message["role"]], "value": turn.pop("content"), **turn})
    before, after = (
        part.replace("<video>", "\n".join(["<image>"] * count)) for part in (kept["before"], kept["after"])
    )
    conversations[0]["value"] = before + conversations[0]["value"] + after
    return {**fields, "conversations": conversations}


def annotation_files(source: Path) -> list[Path]:
    """The files of records at `source`: the file itself, or a folder's `.jsonl` files, else its `.json` files.

    Raises:
        FileNotFoundError: There are none.
    """
    if source.is_file():
        return [source]
    for pattern in ("*.jsonl", "*.json"):
        if files := sorted(source.glob(pattern)):
            return files
    raise FileNotFoundError(
        f"{source} holds no records: expected a .jsonl file (one record on each line) or a .json file (an array of "
        "records, as LLaVA's), or a folder with some."
    )


def read_records(file: Path) -> Iterator[tuple[int, Any]]:
    """Stream the records of a file, numbered from 1: by line, or by place in the array.

    Yields:
        The number, and the JSON value there, or a RecordError where a line is no JSON, or a record is larger or nested deeper
        than any of use.

    Raises:
        ValueError: A `.json` file is no array, or is damaged, so that the records behind the damage can't be found.
    """
    return _read_array(file) if file.suffix == ".json" else _read_lines(file)


def depth_file(folder: Path, image: str) -> str | None:
    """Path of an image's depth map, relative to `folder`; None if there is none.

    The image's whole path is tried first (`depth/kitchen/7.png`), then its base name (`depth/7.png`).
    """
    path = PurePosixPath(image)
    if not path.name:  # "." or "/", which is no image
        return None
    names = [path.with_suffix(".png").name, path.name]
    candidates = [PurePosixPath(DEPTH_FOLDER, name) for name in dict.fromkeys(names)]
    if not path.is_absolute() and ".." not in path.parts:
        candidates.insert(0, PurePosixPath(DEPTH_FOLDER, path.with_suffix(".png")))
    return next((str(candidate) for candidate in candidates if is_file(folder / candidate)), None)


def image_file(folder: Path, image: str) -> Path:
    """File of an image: at its path from `folder`, or from `images` in it if there is nothing (Qwen-VL's demo data).

    If it is neither here nor there, the path from `folder`.
    """
    beside, within = folder / image, folder / _IMAGE_FOLDER / image
    return within if not is_file(beside) and is_file(within) else beside


def is_file(path: Path) -> bool:
    """Whether there is such a file; a path that no file system takes, such as a picture in base64, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _media(record: JsonObject) -> tuple[tuple[str, ...], str | None]:
    """Paths of the images, and of the clip."""
    images, videos = (_paths(record, key) for key in ("image", "video"))
    if images and videos:
        raise RecordError("image and video", "a record shows either images or one clip")
    if len(videos) > 1:
        raise RecordError("several videos", f"{len(videos)} clips; expected one")
    if not images and not videos:
        raise RecordError(
            "no image",
            f"neither 'image' ('images') nor 'video' ('videos'); the record has {', '.join(map(repr, record))}",
        )
    return tuple(images), videos[0] if videos else None


def _paths(record: JsonObject, key: str) -> list[str]:
    value = record.get(key) or []
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise RecordError("no image", f"{key!r} is {str(value)[:80]!r}; expected a path or a list of them")
    return paths


def _gem_names(record: JsonObject) -> JsonObject:
    """A record with other trainers' names replaced by GEM's, where it lacks those."""
    renamed = dict(record)
    for name, other in (_IMAGE_KEYS, _VIDEO_KEYS, _CONVERSATIONS):
        if not renamed.get(name) and renamed.get(other):
            renamed[name] = renamed.pop(other)
    return renamed


def _turns(conversations: Any) -> tuple[str, list[Message]]:
    """The text of a leading system turn, or "", and the other turns as messages, with their other fields."""
    if not isinstance(conversations, list) or not conversations:
        raise RecordError("empty conversation", "'conversations' (or 'messages') is missing or has no turn")
    roles = _ROLES | _OTHER_ROLES
    system = ""
    messages: list[Message] = []
    for place, turn in enumerate(conversations):
        expected = ("user", "assistant")[len(messages) % 2]
        role = roles.get(str(_first(turn, _ROLE_KEYS))) if isinstance(turn, dict) else None
        if role != expected and (role != "system" or place):
            raise RecordError(
                "turns out of order",
                f"turn {place + 1} is {turn!s:.80}; expected {_TURNS[expected]}, in turns",
            )
        text = _first(turn, _TEXT_KEYS)
        if isinstance(text, list):
            raise RecordError(
                "text in parts",
                f"turn {place + 1} says {text!s:.80}; expected one string, with <image> where images are shown",
            )
        if not isinstance(text, str) or (expected == "assistant" and not text.strip()):
            raise RecordError("empty turn", f"turn {place + 1} says {text!r}; expected text")
        if role == "system":
            system = text
            continue
        others = {key: value for key, value in turn.items() if key not in (*_ROLE_KEYS, *_TEXT_KEYS)}
        messages.append({**others, "role": expected, "content": text})
    if len(messages) % 2 or not messages:
        raise RecordError("question without answer", f"{len(messages)} turns; expected one answer to each")
    return system, messages


def _first(turn: JsonObject, keys: Sequence[str]) -> Any:
    """The value under the first of some keys that is there."""
    return next((turn[key] for key in keys if key in turn), None)


def _check_texts(texts: Sequence[str]) -> None:
    """Refuse text that is too long, or that no tokenizer takes: JSON may hold halves of characters."""
    for text in texts:
        if len(text) > LONGEST_TEXT:
            raise RecordError(
                "long text", f"{text[:40]!r}… has {len(text)} characters; expected at most {LONGEST_TEXT}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(
                "text that can't be encoded",
                f"{text[error.start : error.end]!a} at character {error.start + 1} is half of a character; expected Unicode text",
            ) from None


def _take_placeholders(turns: list[Message], images: int, videos: int) -> tuple[str, str]:
    """Cut the placeholders out of the first question; returns those before its text and those behind it."""
    questions = [turn["content"] for turn in turns[::2]]
    found = [name for text in questions for name in _PLACEHOLDER.findall(text)]
    if (found.count("<image>"), found.count("<video>")) != (images, videos):
        raise RecordError(
            "<image> count",
            f"{found.count('<image>')} <image> and {found.count('<video>')} <video> for {images} image(s) and {videos} "
            "clip(s)",
        )
    if any("<image>" in turn["content"] for turn in turns[1::2]):
        raise RecordError("<image> in an answer", "images are shown in questions")
    text = questions[0]
    if leading := _LEADING.match(text):
        before, text, after = leading.group(), text[leading.end() :], ""
    else:
        before, (text, after) = "", _without_trailing(text)
    if _PLACEHOLDER.search(text) or any(_PLACEHOLDER.search(later) for later in questions[1:]):
        raise RecordError(
            "<image> inside the text",
            "expected all placeholders at the beginning, or all at the end, of the first question",
        )
    turns[0] = {**turns[0], "content": text}
    return before, after


def _without_trailing(text: str) -> tuple[str, str]:
    """A text without the placeholders at its end, and those, with the white space around them."""
    rest = text.rstrip()
    if not rest.endswith(_PLACEHOLDERS):
        return text, ""
    while rest.endswith(_PLACEHOLDERS):
        rest = rest[: rest.rindex("<")].rstrip()
    return rest, text[len(rest) :]


def _read_lines(file: Path) -> Iterator[tuple[int, Any]]:
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MOST_RECORD_BYTES + 1):
            number += 1
            if len(line) > MOST_RECORD_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MOST_RECORD_BYTES)
                yield number, _too_large()
            elif line.strip():
                yield number, _parsed(line)


def _parsed(line: bytes) -> Any:
    """The value of a line, or a RecordError."""
    try:
        value = json.loads(line)
    except RecursionError:
        return _too_deep()
    except ValueError as error:  # no JSON, or no UTF-8
        return RecordError("not JSON", str(error))
    # A line has at least two brackets for each level; hardly any has enough of them to be looked at.
    is_suspect = line.count(b"[") + line.count(b"{") > DEEPEST_NESTING
    return _too_deep() if is_suspect and is_too_deep(value) else value


def _read_array(file: Path) -> Iterator[tuple[int, Any]]:
    """Stream the elements of an array of any length, with one in memory at a time."""
    number = 0
    with file.open("rb") as stream:
        if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            stream.seek(0)
        try:
            events = ijson.basic_parse(stream, use_float=True)
            start, _ = next(events)
            if start != "start_array":
                raise ValueError(
                    f"{file} is no array of records: expected '[' at its start, got {start}. Give the file that holds the records."
                )
            for number, record in enumerate(_elements(events), 1):
                yield number, record
        except ijson.JSONError as error:
            raise ValueError(
                f"{file} is damaged behind record {number}: {str(error).splitlines()[0]}. Copy it again, or cut it there and close the array "
                "with ']'."
            ) from error


def _elements(events: Iterator[tuple[str, Any]]) -> Iterator[Any]:
    """The values of an array from ijson's events behind its beginning; of one that is too large or deep nothing is kept."""
    for event, value in events:
        if event == "end_array":
            return
        builder, depth, size = ijson.ObjectBuilder(), 0, 0
        refused: RecordError | None = None
        while True:
            size += len(value) if isinstance(value, str) else 1
            if event.startswith("end_"):
                depth -= 1
            elif event.startswith("start_"):
                depth += 1
                if depth > DEEPEST_NESTING:
                    refused = _too_deep()
            if size > MOST_RECORD_BYTES:
                refused = _too_large()
            if refused is None:
                builder.event(event, value)
            if not depth:
                break
            event, value = next(events)
        yield refused or builder.value


def _too_large() -> RecordError:
    return RecordError("large record", f"expected at most {MOST_RECORD_BYTES} bytes")


def _too_deep() -> RecordError:
    return RecordError(
        "deep nesting", f"expected at most {DEEPEST_NESTING} lists and objects within each other"
    )


def source_of(record: Mapping[str, Any], file: Path) -> str:
    """Name of the collection that a record is from: its `data_source` or `source`, else the file's name."""
    for key in ("data_source", "source"):
        if isinstance(record.get(key), str) and record[key].strip():
            return str(record[key]).strip()
    return file.stem
