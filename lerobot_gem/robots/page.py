"""A preflight as text, and as one HTML file that needs no other."""

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from lerobot_gem.robots.findings import JointRow, Preflight

# Longest side of a picture on the page; larger ones are made smaller.
_LONGEST_SIDE = 480
COLUMNS = ("motor", "now", "trained from", "to", "first action", "chunk from", "to", "trained from", "to")


def as_text(found: Preflight) -> str:
    """What is printed."""
    lines = [f"{found.policy} on {found.robot}", ""]
    width = max((len(finding.subject) for finding in found.findings), default=0)
    for finding in found.findings:
        level = {"ok": "ok", "warning": "warning", "error": "ERROR"}[finding.level]
        lines.append(f"  {level:7}  {finding.subject:{width}}  {finding.text}")
    if found.joints:
        table = [COLUMNS, *map(cells, found.joints)]
        widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
        lines.append("")
        lines += [
            "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
    return "\n".join([*lines, "", found.verdict])


def cells(row: JointRow) -> tuple[str, ...]:
    """A row of the table, as in `COLUMNS`."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    trained, actions = row.trained or (None, None), row.trained_actions or (None, None)
    return (row.name, *map(number, (row.now, *trained, row.first, row.lowest, row.highest, *actions)))


def write_page(found: Preflight, path: Path) -> None:
    """Write the page; its folder is made if there is none."""
    environment = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html.jinja").render(
        found=found,
        columns=COLUMNS,
        rows=[cells(row) for row in found.joints],
        pictures=[
            {"camera": pair.camera, "live": _data_uri(pair.live), "trained": _data_uri(pair.trained)}
            for pair in found.pictures
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _data_uri(picture: NDArray[np.uint8] | None) -> str | None:
    if picture is None:
        return None
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
