"""What an answer about an image says: points, boxes, a number, yes or no, a choice or plain text.

Three notations of points and boxes are read, whatever text or code fence stands around them:

| notation | coordinates | source |
|---|---|---|
| `{"point_2d": [x, y]}`, `{"bbox_2d": [x1, y1, x2, y2]}`, or a list of them | 0 to 1000, of width and height | Qwen3-VL |
| `{"point": [x, y], ...}` | pixels | `lerobot-annotate` |
| `{"detections": [{"bbox": [x1, y1, x2, y2], ...}, ...]}` | pixels | `lerobot-annotate` |

They come out in Qwen3-VL's coordinates, so that a model may answer in another notation than the dataset's.
`lerobot-annotate` also writes `{"count": n}`, `{"attribute": ..., "value": ...}` and `{"subject": ..., "relation": ...,
"object": ...}`; the count, the value and the three words are then the answer.
"""

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

Form = Literal["point", "box", "number", "yes_no", "choice", "text"]
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

# Coordinates run from 0 to this, along the width and along the height (Qwen3-VL).
COORDINATES = 1000.0
# Where only the form of an answer counts, not where its places are.
_ANY_SIZE = (1, 1)

_UNITS = {
    r"mm|milli(?:metre|meter)s?": ("m", Decimal("0.001")),
    r"cm|centi(?:metre|meter)s?": ("m", Decimal("0.01")),
    r"m|metres?|meters?": ("m", Decimal(1)),
    r"%|percent": ("%", Decimal(1)),
}
# Numbers from 0 on, as answers write them.
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = re.compile(
    rf"(?<![\w.,])(?P<value>-?\d+(?:\.\d+)?|{'|'.join(NUMBER_WORDS)})"
    rf"(?:\s*(?P<unit>{'|'.join(_UNITS)}))?(?![\w%]|[.,]\d)",
    re.IGNORECASE,
)
_RANGE = re.compile(rf"\d\s*(?:-|–|to|and|or)\s*\d+(?:\.\d+)?\s*(?:{'|'.join(_UNITS)})(?!\w)", re.IGNORECASE)
# A letter alone or before punctuation: not the first word of "A mug" or "I think".
_CHOICE = re.compile(r"\(?([A-Z])(?:[).:,]+|\s*$)")
_YES_NO = re.compile(r"(yes|no)(?!\w)[.!]?", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """A point or a box.

    Attributes:
        corners: X, y of a point, or left, top, right, bottom of a box; from 0 to `COORDINATES`.
        label: What the answer calls it; empty if it doesn't say.
    """

    corners: tuple[float, ...]
    label: str


@dataclass(frozen=True)
class Quantity:
    """A number as it was written, so that it compares exactly.

    Attributes:
        value: In metres where the unit is one of length.
        unit: "m", "%" or None.
        written: The number as written, in its own unit.
    """

    value: Decimal
    unit: str | None
    written: Decimal = field(compare=False)


def form_of(answer: str) -> Form:
    """The form of a right answer, which decides how others are read and scored.

    Points and boxes may have words around them; any other answer must be nothing but a number with or without a unit,
    "yes" or "no", or one capital letter. Else it is a text.
    """
    if _points(answer):
        return "point"
    if _boxes(answer):
        return "box"
    text = _plain(answer)
    if _NUMBER.fullmatch(text.rstrip(".")):
        return "number"
    if _YES_NO.fullmatch(text):
        return "yes_no"
    return "choice" if _CHOICE.fullmatch(text) else "text"


def parse(answer: str, form: Form, size: tuple[int, int]) -> Any:
    """Read an answer in the form that it should have.

    Args:
        answer: Of a model, or the right one.
        form: Of the right answer.
        size: Width and height of the image, for coordinates in pixels.

    Returns:
        A `Point` (the first of several), a list of `Box`, a `Quantity`, "yes" or "no" (the first word), a letter, or
        the text without case, outer punctuation and repeated blanks. None if there is no such thing in the answer, or if
        it has two different numbers; a number with a unit counts before one without ("object 1 is 7 cm away").
    """
    if form == "point":
        return next(iter(_points(answer, size)), None)
    if form == "box":
        return _boxes(answer, size) or None
    text = _plain(answer)
    if form == "number":
        return _quantity(text)
    if form == "yes_no":
        found = _YES_NO.match(text)
        return found and found[1].lower()
    if form == "choice":
        found = _CHOICE.match(text)
        return found and found[1]
    return " ".join(text.casefold().strip(" \t\n.,;:!?\"'`").split()) or None


def places(answer: str, size: tuple[int, int]) -> list[Place]:
    """The points and boxes of an answer, in order.

    Args:
        answer: Of a model, or the right one.
        size: Width and height of the image, for coordinates in pixels.
    """
    found = []
    for entry in _objects(answer):
        for count, relative, pixels in ((2, "point_2d", "point"), (4, "bbox_2d", "bbox")):
            values = entry.get(relative, entry.get(pixels))
            if not isinstance(values, list) or len(values) != count or not all(map(_is_finite, values)):
                continue
            if relative not in entry:
                values = [value * COORDINATES / size[axis % 2] for axis, value in enumerate(values)]
            label = entry.get("label")
            found.append(Place(tuple(values), label if isinstance(label, str) else ""))
    return found


def _points(answer: str, size: tuple[int, int] = _ANY_SIZE) -> list[Point]:
    return [(x, y) for x, y in (place.corners for place in places(answer, size) if len(place.corners) == 2)]


def _boxes(answer: str, size: tuple[int, int] = _ANY_SIZE) -> list[Box]:
    found = (place.corners for place in places(answer, size) if len(place.corners) == 4)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in found]


def _is_finite(value: Any) -> bool:
    # An integer of JSON can be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def _objects(answer: str) -> list[dict[str, Any]]:
    """The JSON objects of an answer, with those in a list or under `detections`."""
    found = _json(answer)
    if isinstance(found, dict):
        found = found.get("detections", [found])
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _json(answer: str) -> Any:
    """The first object of JSON in a text, or list of such."""
    for start in re.finditer(r"[\[{]", answer):
        try:
            found = json.JSONDecoder().raw_decode(answer, start.start())[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) or any(isinstance(entry, dict) for entry in found):
            return found
    return None


def _plain(answer: str) -> str:
    """The answer in words, where it is one of lerobot-annotate's objects."""
    for entry in _objects(answer):
        if "relation" in entry:
            return " ".join(str(entry.get(key, "")) for key in ("subject", "relation", "object"))
        for key in ("count", "value"):
            if key in entry:
                return str(entry[key])
    return answer.strip()


def _quantity(text: str) -> Quantity | None:
    """The number in a text, which must be the only one and no range; of several with and without unit, the one with."""
    if _RANGE.search(text):
        return None
    numbers = {_read(match) for match in _NUMBER.finditer(text)}
    with_unit = {number for number in numbers if number.unit}
    chosen = with_unit or numbers
    return chosen.pop() if len(chosen) == 1 else None


def _read(match: re.Match[str]) -> Quantity:
    text = match["value"].lower()
    written = Decimal(NUMBER_WORDS.index(text)) if text in NUMBER_WORDS else Decimal(text)
    for pattern, (unit, factor) in _UNITS.items():
        if match["unit"] and re.fullmatch(pattern, match["unit"], re.IGNORECASE):
            return Quantity(written * factor, unit, written)
    return Quantity(written, None, written)
