"""The page with pictures: one HTML file that needs no other, with frames, depth and questions as training sees them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lerobot_gem.data.check.facts import CameraView, Inspection, ShownFrame
from lerobot_gem.data.check.report import Section, sections, summary, verdict
from lerobot_gem.data.check.warnings import warnings_of
from lerobot_gem.processing.answers import COORDINATES, places
from lerobot_gem.processing.depth_target import paint
from lerobot_gem.storage.images import data_uri

_COLOURS = ("#ff4d4d", "#3ddc68", "#4da3ff", "#ffd23f", "#e36bff", "#35e0e0")
# Lines and letters are sized for pictures this wide, in pixels.
_DRAWN_WIDTH = 236


@dataclass(frozen=True)
class Shape:
    """A point (x, y) or a box (left, top, right, bottom) that an answer names, in pixels, and its label."""

    corners: tuple[float, ...]
    label: str


def write_page(found: Inspection, path: Path) -> None:
    """Write the page; its folder is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_html(found), encoding="utf-8")


def as_html(found: Inspection) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.jinja").render(
        found=found,
        summary=summary(found),
        verdict=verdict(found),
        warnings=warnings_of(found),
        sections=[
            {"title": section.title, "table": _table(section), "notes": section.notes}
            for section in sections(found)
        ],
        frames=[_frame(frame) for frame in found.shown],
        legend=_legend(found),
    )


def _table(section: Section) -> Markup:
    """The table of a section; pandas escapes its text."""
    with pd.option_context("display.max_colwidth", None):
        return Markup(section.cells().to_html(index=False, border=0))


def shapes_of(answer: str, width: int, height: int) -> list[Shape]:
    """Points and boxes of an answer, for an image of this size.

    Args:
        answer: Qwen3-VL's JSON, objects with "point_2d" or "bbox_2d" in thousandths of the image, as they are or in a block
            of code; or LeRobot's (lerobot-annotate), "point" or "detections" with "bbox" in pixels. Other text has none.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
    """
    sides = (width, height)
    return [
        Shape(
            tuple(value * sides[axis % 2] / COORDINATES for axis, value in enumerate(place.corners)),
            place.label,
        )
        for place in places(answer, sides)
    ]


def _frame(frame: ShownFrame) -> dict[str, Any]:
    exchanges = [
        {
            "question": question["content"],
            "answer": answer["content"],
            "camera": question.get("camera"),
            "colour": _COLOURS[number % len(_COLOURS)],
        }
        for number, (question, answer) in enumerate(
            zip(frame.messages[::2], frame.messages[1::2], strict=True)
        )
    ]
    return {
        "index": frame.index,
        "episode": frame.episode,
        "timestamp": frame.timestamp,
        "task": frame.task,
        "exchanges": exchanges,
        "views": [_view(view, exchanges, is_first=number == 0) for number, view in enumerate(frame.views)],
    }


def _view(view: CameraView, exchanges: list[dict[str, Any]], *, is_first: bool) -> dict[str, Any]:
    height, width = view.rgb.shape[:2]
    unit = width / _DRAWN_WIDTH
    drawn = []
    for exchange in exchanges:
        # A place that is asked about no camera can only be meant in the first.
        if exchange["camera"] == view.camera or (exchange["camera"] is None and is_first):
            drawn += [
                _drawn(shape, exchange["colour"], width, height, unit)
                for shape in shapes_of(exchange["answer"], width, height)
            ]
    reach = view.depth_range
    distances = f"{reach[0]:.2f} to {reach[1]:.2f} m" if reach else "no valid pixel"
    return {
        "camera": view.camera,
        "rgb": data_uri(view.rgb),
        "depth": data_uri(view.depth) if view.depth is not None else None,
        "caption": f"depth: {distances}, {view.invalid:.1%} invalid",
        "width": width,
        "height": height,
        "unit": unit,
        "shapes": drawn,
    }


def _drawn(shape: Shape, colour: str, width: int, height: int, unit: float) -> dict[str, Any]:
    """A shape with its label beside it, inside the picture."""
    x, y = shape.corners[0], shape.corners[1]
    to_left = x > width / 2
    is_box = len(shape.corners) == 4
    if is_box:
        x = shape.corners[2] if to_left else x
        y = y - 3 * unit if y > 14 * unit else shape.corners[3] + 10 * unit
    else:
        x, y = x + (-6 if to_left else 6) * unit, y + 3 * unit
    return {
        "corners": shape.corners,
        "label": shape.label,
        "colour": colour,
        "at": (x, min(max(y, 9 * unit), height - 3 * unit)),
        "anchor": "end" if to_left else "start",
    }


def _legend(found: Inspection) -> str:
    values = torch.linspace(0, 1, 128)[None, None, None].expand(1, 1, 8, 128)
    if found.colormap == "inferno":
        values = 1 - values  # there, 1 is near
    picture = (paint(values, found.colormap)[0].movedim(0, -1) + 1) * 127.5
    return data_uri(picture.round().byte().numpy())
