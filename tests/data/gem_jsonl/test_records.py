"""Records of the GEM format: what is read, refused and written again."""

import json
import re
import time
from pathlib import Path

import pytest

from lerobot_gem.data.gem_jsonl.limits import LONGEST_TEXT, MOST_RECORD_BYTES
from lerobot_gem.data.gem_jsonl.records import (
    RECORD,
    GemRecord,
    RecordError,
    annotation_files,
    depth_file,
    image_file,
    read_records,
    record_of,
    source_of,
)
from lerobot_gem.processing.language import parse_messages

CAMERA = "observation.images.image"


def record(*texts: str, image: str | list[str] = "a.jpg", **fields) -> dict:
    names = ("human", "gpt") * len(texts)
    turns = [{"from": name, "value": text} for name, text in zip(names, texts, strict=False)]
    return {"image": image, "conversations": turns, **fields}


def test_a_record_becomes_messages_that_the_plugin_reads_and_comes_back() -> None:
    original = record(
        "<image>\nWhere is the cup?", "On the table.", "And the fork?", " Left. ", id="7", data_source="spar"
    )
    original["conversations"][1]["weight"] = 2
    parsed = GemRecord.parse(original)
    messages = parse_messages(json.dumps(parsed.messages(CAMERA, [{"file": "depth/a.png", "bits": 8}])))
    assert [message["content"] for message in messages] == [
        "Where is the cup?",
        "On the table.",
        "And the fork?",
        " Left. ",
    ]
    assert [message.get("camera") for message in messages] == [CAMERA, None, CAMERA, None]
    assert messages[0][RECORD]["depth"] == [{"file": "depth/a.png", "bits": 8}]
    assert record_of(messages, ["a.jpg"]) == original
    assert GemRecord.from_json(parsed.to_json()) == parsed


@pytest.mark.parametrize(
    "question",
    [
        "<image>\nWhere?",
        "<image>Where?",
        "  <image> \n Where?",
        "Where?\n<image>",
        "Where?<image> ",
        "<image>",
        " <image>\n",
    ],
)
def test_placeholders_before_or_behind_the_text_are_cut_and_put_back(question: str) -> None:
    original = record(question, "There.")
    parsed = GemRecord.parse(original)
    assert parsed.turns[0]["content"] == ("Where?" if "Where" in question else "")
    assert record_of(parsed.messages(CAMERA), ["a.jpg"]) == original


def test_several_images_stay_a_list() -> None:
    original = record("<image>\n<image>\nWhich is nearer?", "The first.", image=["a.jpg", "b.jpg"])
    assert record_of(GemRecord.parse(original).messages(None), ["a.jpg", "b.jpg"]) == original
    alone = record("<image>What?", "That.", image=["a.jpg"])
    assert record_of(GemRecord.parse(alone).messages(CAMERA), ["a.jpg"]) == alone


def test_a_clip_becomes_its_frames() -> None:
    original = {"video": "a.mp4", "conversations": record("<video>\nWhat next?", "Pour.")["conversations"]}
    parsed = GemRecord.parse(original)
    assert parsed.video == "a.mp4" and parsed.images == ()
    written = record_of(parsed.messages(None), ["f1.jpg", "f2.jpg"])
    assert written == record("<image>\n<image>\nWhat next?", "Pour.", image=["f1.jpg", "f2.jpg"])


def test_messages_of_another_origin_become_a_record() -> None:
    messages = [
        {"role": "user", "content": "Where?", "camera": CAMERA},
        {"role": "assistant", "content": "There."},
    ]
    assert record_of(messages, ["x.png"]) == record("<image>\nWhere?", "There.", image="x.png")


@pytest.mark.parametrize("image", [{"image": "1.jpg"}, {"images": ["1.jpg"]}])
@pytest.mark.parametrize(
    ("key", "speaker", "text", "names"),
    [
        ("conversations", "from", "value", ("human", "gpt", "system")),  # LLaVA, Qwen-VL
        ("conversations", "from", "value", ("user", "assistant", "system")),
        ("messages", "role", "content", ("user", "assistant", "system")),  # LLaMA-Factory, ms-swift
    ],
)
@pytest.mark.parametrize("system", [False, True])
def test_layouts_of_other_trainers(
    image: dict, key: str, speaker: str, text: str, names: tuple, system: bool
) -> None:
    user, assistant, first = names
    turns = [{speaker: user, text: "<image>\nWhat?"}, {speaker: assistant, text: "A cup."}]
    if system:
        turns.insert(0, {speaker: first, text: "You are a robot."})
    parsed = GemRecord.parse({"id": 1, **image, key: turns})
    assert parsed.images == ("1.jpg",) and parsed.has_system_turn == system
    assert [(turn["role"], turn["content"]) for turn in parsed.turns] == [
        ("user", "What?"),
        ("assistant", "A cup."),
    ]
    # The export writes GEM's own names.
    written = record_of(parsed.messages(CAMERA), ["1.jpg"])
    expected = record("<image>\nWhat?", "A cup.", image=image.get("image", ["1.jpg"]), id=1)
    assert written == (expected | {"system": "You are a robot."} if system else expected)


def test_gem_names_come_first() -> None:
    original = record("<image>Where?", "There.", images=["b.jpg", "c.jpg"], messages=[])
    parsed = GemRecord.parse(original)
    assert parsed.images == ("a.jpg",) and record_of(parsed.messages(CAMERA), ["a.jpg"]) == original


def test_a_refused_record_says_what_was_found_and_expected() -> None:
    for faulty, found in (
        ({"instruction": "?", "output": "!"}, "'image' ('images')*the record has 'instruction', 'output'"),
        (
            {"image": "a.jpg", "conversations": [{"role": "tool"}]},
            "'tool'*{'from': 'human', 'value': ...} or {'role': 'user'",
        ),
        (
            {"image": "a.jpg", "messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "one string, with <image>",
        ),
    ):
        with pytest.raises(RecordError) as error:
            GemRecord.parse(faulty)
        assert all(part in error.value.detail for part in found.split("*")), error.value.detail


def test_an_image_may_be_in_the_folder_of_images(tmp_path: Path) -> None:
    for name in ("1.jpg", "images/1.jpg", "images/k/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert image_file(tmp_path, "1.jpg") == tmp_path / "1.jpg"
    assert image_file(tmp_path, "k/2.jpg") == tmp_path / "images/k/2.jpg"
    assert image_file(tmp_path, "3.jpg") == tmp_path / "3.jpg"


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        ([1], "not a record"),
        ({"image": "a.jpg"}, "empty conversation"),
        ({"image": "a.jpg", "conversations": []}, "empty conversation"),
        (record("<image>\nWhere?"), "question without answer"),
        (record("<image>\nWhere?", " "), "empty turn"),
        (
            {"image": "a.jpg", "conversations": [{"from": "system", "value": "Be brief."}]},
            "question without answer",
        ),
        (
            {"image": "a.jpg", "conversations": [{"from": "gpt", "value": "There."}]},
            "turns out of order",
        ),
        (
            {
                "image": "a.jpg",
                "conversations": [
                    *record("<image>?", "!")["conversations"],
                    {"from": "system", "value": "Be brief."},
                ],
            },
            "turns out of order",
        ),
        ({"image": "a.jpg", "messages": [{"role": "user", "content": [{"text": "?"}]}]}, "text in parts"),
        (record("<image>Where?", "Half of a \ud83d face."), "text that can't be encoded"),
        (record("<image>\udc00?", "There."), "text that can't be encoded"),
        (record("Where?", "There."), "<image> count"),
        (record("<image><image>Where?", "There."), "<image> count"),
        (record("<image>Where?", "There.", image=["a.jpg", "b.jpg"]), "<image> count"),
        (record("<video>Where?", "There."), "<image> count"),
        (record("<image>Where?", "See <image>."), "<image> in an answer"),
        (record("In <image>, where is it?", "There."), "<image> inside the text"),
        (record("Where?", "There.", "And here? <image>", "No."), "<image> inside the text"),
        (
            record("<image>One. <image>Two. Which?", "One.", image=["a.jpg", "b.jpg"]),
            "<image> inside the text",
        ),
        (record("Where?", "There.", image=[]), "no image"),
        (record("Where?", "There.", image=[7]), "no image"),
        (record("<image>Where?", "There.", video="a.mp4"), "image and video"),
        ({**record("<video>?", "!", video=["a", "b"]), "image": None}, "several videos"),
        (record("<image>?", "!" * (LONGEST_TEXT + 1)), "long text"),
    ],
)
def test_refused(faulty: object, reason: str) -> None:
    with pytest.raises(RecordError) as error:
        GemRecord.parse(faulty)
    assert error.value.reason == reason


def test_lines_that_are_no_json_are_numbered(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": 1}\n\nnot json\n{"id": "\xff"}\n{"id": 2}\n')
    found = list(read_records(file))
    assert [number for number, _ in found] == [1, 3, 4, 5]
    assert [r for _, r in found if not isinstance(r, RecordError)] == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_what_is_too_deep_or_too_large_is_one_record_that_is_refused(tmp_path: Path, name: str) -> None:
    deep, closed = "[" * 200_000, "]" * 200_000
    faulty = [
        deep + closed,
        f'{{"id": {deep}{closed}}}',
        "[" * 40 + "]" * 40,
        json.dumps("x" * (MOST_RECORD_BYTES + 1)),
    ]
    if name == "a.jsonl":
        faulty.append(deep)
    parts = ['{"id": 1}', *faulty, '{"id": 2}']
    (tmp_path / name).write_text("\n".join(parts) if name == "a.jsonl" else f"[{','.join(parts)}]")
    found = list(read_records(tmp_path / name))
    assert [number for number, _ in found] == list(range(1, len(parts) + 1))
    assert [value for _, value in found if not isinstance(value, RecordError)] == [{"id": 1}, {"id": 2}]
    reasons = [value.reason for _, value in found if isinstance(value, RecordError)]
    assert reasons == ["deep nesting"] * 3 + ["large record"] + ["deep nesting"] * (name == "a.jsonl")


@pytest.mark.parametrize("text", [" " * 30_000 + "z", "<image>" * 4_000 + "z", "z" + "<image> " * 4_000])
def test_a_long_text_takes_no_hours(text: str) -> None:
    before = time.process_time()
    with pytest.raises(RecordError, match="<image> count"):
        GemRecord.parse(record(text, "There."))
    GemRecord.parse(record("<image>" + text.replace("<image>", ""), "There."))
    assert time.process_time() - before < 1


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_an_array_is_streamed(tmp_path: Path, indent: int | None, encoding: str) -> None:
    records = [{"id": n, "text": 'a "quote", [brackets] \u00e9' * n, "weight": n / 2} for n in range(5)]
    file = tmp_path / "llava.json"
    file.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding=encoding)
    assert list(read_records(file)) == list(enumerate(records, 1))


@pytest.mark.parametrize(
    ("text", "fault"),
    [('[{"id": 1}, {"id": ', "behind record 1"), ("", "behind record 0"), ('{"id": 1}', "no array")],
)
def test_a_damaged_array_is_an_error(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "llava.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=fault):
        list(read_records(file))


def test_annotation_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path} holds no records")):
        annotation_files(tmp_path)
    for name in ("b.json", "a.jsonl"):
        (tmp_path / name).touch()
    assert annotation_files(tmp_path) == [tmp_path / "a.jsonl"]
    assert annotation_files(tmp_path / "b.json") == [tmp_path / "b.json"]


@pytest.mark.parametrize(
    ("depth", "found"),
    [("depth/k/7.png", True), ("depth/7.png", True), ("depth/7.jpg", True), ("depth/8.png", False)],
)
def test_depth_is_found_by_path_or_base_name(tmp_path: Path, depth: str, found: bool) -> None:
    path = tmp_path / depth
    path.parent.mkdir(parents=True)
    path.touch()
    assert depth_file(tmp_path, "k/7.jpg") == (depth if found else None)


def test_an_absolute_path_is_not_taken_for_its_own_depth(tmp_path: Path) -> None:
    (tmp_path / "7.png").touch()
    assert depth_file(tmp_path / "gem", str(tmp_path / "7.png")) is None


def test_source_of() -> None:
    assert source_of({"data_source": "spar"}, Path("x.jsonl")) == "spar"
    assert source_of({"source": "vica"}, Path("x.jsonl")) == "vica"
    assert source_of({"source": 3}, Path("x.jsonl")) == "x"


@pytest.mark.parametrize("image", [".", "/"])
def test_a_folder_as_an_image_has_no_depth(tmp_path: Path, image: str) -> None:
    assert depth_file(tmp_path, image) is None
