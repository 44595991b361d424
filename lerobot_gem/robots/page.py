"""A preflight as text, and as one HTML file that needs no other."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lerobot_gem.robots.findings import JointRow, Preflight
from lerobot_gem.storage.images import data_uri

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
            {
                "camera": pair.camera,
                "live": None if pair.live is None else data_uri(pair.live),
                "trained": None if pair.trained is None else data_uri(pair.trained),
            }
            for pair in found.pictures
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
