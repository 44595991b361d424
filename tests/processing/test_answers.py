"""What answers say: forms, kinds, and what is read from them."""

from decimal import Decimal

import pytest

from lerobot_gem.processing.answers import form_of, kind_of, parse

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
    ("question", "answer", "form", "kind"),
    [
        ("Point to the mug.", '{"point_2d": [1, 2]}', "point", "point"),
        ("Where should the gripper grasp the mug?", '{"point_2d": [1, 2]}', "point", "affordance"),
        ("Where is the mug?", '{"bbox_2d": [1, 2, 3, 4]}', "box", "box"),
        ("How many mugs are there?", "2", "number", "count"),
        ("How many mugs are there?", "There are two.", "number", "count"),
        ("How many mugs are there?", '{"label": "mug", "count": 2}', "number", "count"),
        ("How far is the mug from the plate, in metres?", "0.32", "number", "object_distance"),
        ("Where is the mug?", "0.32 m", "number", "object_distance"),
        ("What is the distance between the gripper and the mug?", "7 cm", "number", "gripper_distance"),
        (
            "Estimate how far the mug is from the robot's gripper, in cm.",
            "7 cm",
            "number",
            "gripper_distance",
        ),
        ("How much of the task is done?", "40 %", "number", "progress"),
        ("Which number is on the box?", "7", "number", "number"),
        ("Is the mug left of the plate?", "yes", "text", "relation"),
        ("Which is nearer, the mug or the plate?", "The mug.", "text", "nearer"),
        ("Is the mug to the left or to the right of the plate?", "left", "text", "left_right"),
        ("Is the mug in front of the plate or behind it?", "behind", "text", "front_behind"),
        ("Relate them.", '{"subject": "mug", "relation": "on", "object": "plate"}', "text", "relation"),
        ("Describe it.", '{"label": "mug", "attribute": "color", "value": "red"}', "text", "attribute"),
        ("The task is: lift it. Which step is it?", "Close the gripper.", "text", "subtask"),
        ("What is the robot doing now?", "Close the gripper.", "text", "subtask"),
        ("The task is: lift it. Which step comes next?", "Close the gripper.", "text", "next_subtask"),
        ("Is the mug next to the plate, left of the can?", "yes", "text", "relation"),
        ("Where is the mug? A. left B. right", "A", "choice", "choice"),
        ("What is on the table?", "Two mugs and 1 plate.", "text", "text"),
    ],
)
def test_kinds_are_told_from_question_and_answer(question, answer, form, kind):
    assert (form_of(question, answer), kind_of(question, answer)) == (form, kind)


TASK = "Pick up the black bowl next to the plate and place it on the plate."


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        # As lerobot-gem-libero-demos --qa puts them.
        ("Mark the milk with a single point, in JSON.", '{"point_2d": [1, 2]}', "point"),
        (
            f"The robot was told: {TASK} Point to where it should grip, in JSON.",
            '{"point_2d": [1, 2]}',
            "affordance",
        ),
        (
            "Where in the picture is the milk? Answer with its bbox_2d in JSON.",
            '{"bbox_2d": [1, 2, 3, 4]}',
            "box",
        ),
        ("On which side of the butter is the milk, left or right?", "left", "left_right"),
        (
            "Seen from the camera, is the milk in front of the butter or behind it?",
            "in front",
            "front_behind",
        ),
        ("Compare the milk and the butter: which one is closer to the gripper?", "milk", "nearer"),
        ("How far apart are the milk and the butter, in centimetres?", "32 cm", "object_distance"),
        ("How far is the gripper from the milk, in metres?", "0.32 m", "gripper_distance"),
        ("How many other objects are closer to the camera than the milk?", "2", "count"),
        ("How many other objects are to the left of the milk in the picture?", "0", "count"),
        (f"The task is: {TASK} What is the current sub-task?", "Lift the black bowl.", "subtask"),
        (f"The robot was told: {TASK} What does it have to do now?", "Lift the black bowl.", "subtask"),
        (
            f"The task is: {TASK} Which step comes after the current one?",
            "Lift the black bowl.",
            "next_subtask",
        ),
        (f"The task is: {TASK} What percentage of its six steps is done?", "17%", "progress"),
    ],
)
def test_kinds_of_simulated_questions(question, answer, kind):
    assert kind_of(question, answer) == kind
