"""What answers say: their forms, and what is read from them."""

from decimal import Decimal

import pytest

from lerobot_gem.processing.answers import form_of, parse

SIZE = 640, 480


@pytest.mark.parametrize(
    "answer",
    [
        '{"point_2d": [250, 500]}',
        '```json\n[{"point_2d": [250, 500], "label": "mug"}]\n```',
        'It is at {"point_2d": [250, 500]}, I think.',
        '[{"point_2d": [250, 500]}, {"point_2d": [1, 2]}]',
        '{"label": "mug", "point_format": "xy", "point": [160, 240]}',
    ],
)
def test_points_of_every_notation_come_out_in_the_same_coordinates(answer):
    assert parse(answer, "point", SIZE) == (250, 500)


@pytest.mark.parametrize(
    "answer",
    [
        '{"bbox_2d": [100, 200, 300, 400]}',
        '```json\n[\n{"bbox_2d": [100, 200, 300, 400], "label": "mug"}\n]\n```',
        'Object [1] is here: {"bbox_2d": [100, 200, 300, 400]}',
        '{"detections": [{"label": "mug", "bbox_format": "xyxy", "bbox": [64, 96, 192, 192]}]}',
    ],
)
def test_boxes_of_every_notation_come_out_in_the_same_coordinates(answer):
    assert parse(answer, "box", SIZE) == [(100, 200, 300, 400)]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "There.",
        "[250, 500]",
        '{"point_2d": [250]}',
        '{"point_2d": [250, 500, 1]}',
        '{"point_2d": ["250", "500"]}',
        '{"point_2d": [true, 500]}',
        '{"point_2d": [NaN, 500]}',
        '{"point_2d": [1' + "0" * 400 + ", 500]}",
        '{"point_2d": [250, 500',
        '{"bbox_2d": [250, 500, 1, 2]}',
        "[" * 3000,
        '{"detections": 3}',
    ],
)
def test_what_is_no_point_is_not_read_as_one(answer):
    assert parse(answer, "point", SIZE) is None


@pytest.mark.parametrize(
    ("answer", "value", "unit"),
    [
        ("3", "3", None),
        ("3.", "3", None),
        ("-0.5", "-0.5", None),
        ("Three.", "3", None),
        ("There are two mugs.", "2", None),
        ("0.32 m", "0.32", "m"),
        ("0.32m", "0.32", "m"),
        ("About 32 centimetres.", "0.32", "m"),
        ("320 mm, that is 32 cm", "0.32", "m"),
        ("Object 1 is 0.3 meters from the gripper", "0.3", "m"),
        ("40 %", "40", "%"),
        ("It is 40% done.", "40", "%"),
        ('{"label": "mug", "count": 2}', "2", None),
    ],
)
def test_numbers_are_read_with_their_unit(answer, value, unit):
    quantity = parse(answer, "number", SIZE)
    assert (quantity.value, quantity.unit) == (Decimal(value), unit)


@pytest.mark.parametrize(
    "answer", ["", "many", "2 or 3", "0.3 m or 0.4 m", "between 5 and 10 cm", "5-10 cm", "1,200", "mug2"]
)
def test_no_number_or_several_are_not_read_as_one(answer):
    assert parse(answer, "number", SIZE) is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. on the left", "B"),
        ("B\n", "B"),
        ("b", None),
        ("", None),
        ("the left", None),
        ("A red mug is on the left.", None),
        ("I think it is C", None),
    ],
)
def test_choices_are_their_first_letter(answer, letter):
    assert parse(answer, "choice", SIZE) == letter


def test_texts_are_compared_without_case_outer_punctuation_and_repeated_blanks():
    assert parse('  "Left  of\nthe plate." ', "text", SIZE) == parse("left of the plate", "text", SIZE)
    assert parse("left-hand", "text", SIZE) != parse("left hand", "text", SIZE)
    assert parse(" . ", "text", SIZE) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "yes"),
        ("Yes, it is left of it.", "yes"),
        ("No.", "no"),
        ("Nothing.", None),
        ("It is.", None),
        ("", None),
    ],
)
def test_yes_or_no_is_the_first_word(answer, said):
    assert parse(answer, "yes_no", SIZE) == said


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ('{"point_2d": [1, 2]}', "point"),
        ('It is here: {"point_2d": [1, 2]}', "point"),
        ('{"bbox_2d": [1, 2, 3, 4]}', "box"),
        ("2", "number"),
        ("Two.", "number"),
        ("There are two.", "text"),
        ('{"label": "mug", "count": 2}', "number"),
        ("0.32", "number"),
        ("0.32 m", "number"),
        ("7 cm", "number"),
        ("40 %", "number"),
        ("17%", "number"),
        ("yes", "yes_no"),
        ("No.", "yes_no"),
        ("Yes, it is.", "text"),
        ("The mug.", "text"),
        ("left", "text"),
        ("behind", "text"),
        ('{"subject": "mug", "relation": "on", "object": "plate"}', "text"),
        ('{"label": "mug", "attribute": "color", "value": "red"}', "text"),
        ("Close the gripper.", "text"),
        ("A", "choice"),
        ("(B)", "choice"),
        ("Two mugs and 1 plate.", "text"),
    ],
)
def test_forms_are_told_from_the_answer(answer, form):
    assert form_of(answer) == form
