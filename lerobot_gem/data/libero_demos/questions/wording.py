"""How questions are put and answers written. The kinds of questions decide what is asked; here are the words.

Coordinates are Qwen3-VL's: integers from 0 to 1000 along the width and along the height of the image, in the JSON
that its cookbooks use.
"""

import json

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.processing.answers import COORDINATES, NUMBER_WORDS

TEMPLATES: dict[str, tuple[str, ...]] = {
    "point": (
        "Point to the {name}. Answer in JSON with point_2d.",
        "Where is the {name}? Give one point on it in JSON.",
        "Locate the {name} with a point and report its point_2d in JSON.",
        "Mark the {name} with a single point, in JSON.",
    ),
    "box": (
        "Locate the visible part of the {name} and report its bbox_2d in JSON.",
        "Draw a box around what can be seen of the {name}. Answer in JSON with bbox_2d.",
        "Give the bounding box of the visible part of the {name}, in JSON.",
        "Where in the picture is the {name}? Answer with its bbox_2d in JSON.",
    ),
    "left_right": (
        "Is the {name} to the left or to the right of the {other} in the picture?",
        "In this picture, is the {name} left or right of the {other}?",
        "On which side of the {other} is the {name}, left or right?",
    ),
    "front_behind": (
        "Seen from the camera, is the {name} in front of the {other} or behind it?",
        "Is the {name} in front of or behind the {other}, as this camera sees them?",
        "Where is the {name} from the camera's view, in front of the {other} or behind it?",
    ),
    "nearer_camera": (
        "Which is closer to the camera, the {name} or the {other}?",
        "Which of the two is nearer to the camera: the {name} or the {other}?",
        "Compare the {name} and the {other}: which one is closer to the camera?",
    ),
    "nearer_gripper": (
        "Which is closer to the gripper, the {name} or the {other}?",
        "Which of the two is nearer to the gripper: the {name} or the {other}?",
        "Compare the {name} and the {other}: which one is closer to the gripper?",
    ),
    "object_distance": (
        "How far apart are the {name} and the {other}, in {unit}?",
        "What is the distance between the {name} and the {other} in {unit}?",
        "Estimate how far the {name} is from the {other}. Answer in {unit}.",
    ),
    "gripper_distance": (
        "How far is the gripper from the {name}, in {unit}?",
        "What is the distance between the gripper and the {name} in {unit}?",
        "Estimate how far the {name} is from the robot's gripper. Answer in {unit}.",
    ),
    "count_all": (
        "How many objects are in the picture? Count neither the robot nor furniture.",
        "How many objects can be seen, without the robot and furniture?",
    ),
    "count_category": (
        "How many {plural} are in the picture?",
        "How many {plural} can be seen?",
    ),
    "count_left": ("How many other objects are to the left of the {name} in the picture?",),
    "count_right": ("How many other objects are to the right of the {name} in the picture?",),
    "count_closer": ("How many other objects are closer to the camera than the {name}?",),
    "affordance": (
        "Where should the gripper grasp the {name}? Answer in JSON with point_2d.",
        "Point to where the robot should grip the {name}, in JSON.",
        "At which point should the robot grasp the {name}? Give its point_2d in JSON.",
    ),
    "affordance_task": (
        "The task is: {task} Where should the robot grasp? Give one point in JSON.",
        "The robot was told: {task} Point to where it should grip, in JSON.",
    ),
    "subtask": (
        "The task is: {task} Which step is the robot at?",
        "The task is: {task} What is the current sub-task?",
        "The robot was told: {task} What does it have to do now?",
    ),
    "next_subtask": (
        "The task is: {task} Which step comes next, after the current one?",
        "The task is: {task} What is the next sub-task, once the current one is done?",
        "The robot was told: {task} What does it have to do next, after what it is doing now?",
    ),
    "progress": (
        "The task is: {task} What percentage of its {steps} steps is done?",
        "The robot was told: {task} How far along is it, in percent of its {steps} steps?",
        "The task is: {task} How much progress has the robot made, in percent of its {steps} steps?",
    ),
}
PLURALS = {"can": "cans", "bottle": "bottles", "carton": "cartons", "box": "boxes", "bowl": "bowls"}
UNITS = {"centimetres": "cm", "metres": "m"}


def write_question(template: str, rng: np.random.Generator, **slots: str) -> str:
    """One of the templates, filled in."""
    texts = TEMPLATES[template]
    return texts[rng.integers(len(texts))].format(**slots)


def write_point(pixel: NDArray[np.floating], height: int, width: int) -> str:
    """A point (2,) column and row, in pixels from the image's corner."""
    x, y = (
        round(float(value) * COORDINATES / size) for value, size in zip(pixel, (width, height), strict=True)
    )
    return json.dumps({"point_2d": [x, y]})


def write_box(left: int, top: int, right: int, bottom: int, height: int, width: int) -> str:
    """A box of pixels, edges in pixels from the image's corner: `right` and `bottom` are one past the last pixel."""
    edges = ((left, width), (top, height), (right, width), (bottom, height))
    return json.dumps({"bbox_2d": [round(value * COORDINATES / size) for value, size in edges]})


def write_distance(metres: float, unit: str) -> str:
    """Whole centimetres, or metres with two decimals."""
    return f"{metres * 100:.0f} cm" if unit == "cm" else f"{metres:.2f} m"


def write_number(number: int) -> str:
    """In words up to ten."""
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)
