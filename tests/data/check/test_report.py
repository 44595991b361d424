"""The tables that the printed report and the page share."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lerobot_gem.data.check.facts import (
    CameraFacts,
    DepthFacts,
    Inspection,
    StageFacts,
    TaskFacts,
    VectorFacts,
)
from lerobot_gem.data.check.report import as_text, sections, verdict

FOUND = Inspection(
    "local/noise",
    Path("noise"),
    "panda",
    5,
    3,
    1234,
    sampled=200,
    padding=0.25,
    cameras=[CameraFacts("front", (640, 480), "video", None, 0.0)],
    vectors=[
        VectorFacts("action", ["x", "grip"], np.array([-1.0, 0]), np.array([0.5, 0]), 0, [], True, ["grip"])
    ],
    tasks=[TaskFacts(f"task {number}", 1, 2000 - number) for number in range(17)],
    stages=[
        StageFacts("joint", errors=["No depth", "too"], depth=0.5, language=1.0),
        StageFacts("action", depth=0.5, language=1.0, action=1.0),
        StageFacts("connector", lacking="no depth", errors=["No depth"], depth=0.0),
    ],
)


def cells(found: Inspection, title: str) -> list[list[str]]:
    """The cells of the section whose title begins so, as they are shown."""
    [section] = [section for section in sections(found) if section.title.startswith(title)]
    return section.cells().values.tolist()


def test_shares_sizes_and_ranges_are_written_as_such():
    assert cells(FOUND, "What each stage") == [
        ["joint", "2 error(s)", "50.0%", "100.0%", "-"],
        ["action", "ready", "50.0%", "100.0%", "100.0%"],
        ["connector", "no depth", "0.0%", "-", "-"],
    ]
    assert cells(FOUND, "Cameras") == [["front", "640 x 480", "video", "-", "0.0%"]]
    assert cells(FOUND, "action") == [["x", "-1", "0.5", ""], ["grip", "0", "0", "stands still"]]


def test_depth_without_a_valid_pixel_has_no_distances():
    blank = DepthFacts("depth", None, (64, 48), "image", None, None, 1.0, 1.0)
    seen = replace(blank, camera="front", unit="mm", distances=(0.3, 1.0, 4.25), invalid=0.1)
    blank_row, seen_row = cells(replace(FOUND, depth=[blank, seen]), "Depth")
    assert blank_row == ["depth", "-", "64 x 48", "image, unknown unit", "-", "-", "-", "100.0%", "100.0%"]
    assert seen_row[4:7] == ["0.300 m", "1.000 m", "4.250 m"]


def test_rare_tasks_are_counted():
    [tasks] = [section for section in sections(FOUND) if section.title == "Tasks"]
    assert tasks.table["frames"].tolist() == list(range(2000, 1985, -1))
    assert tasks.notes == ["2 more tasks with 3,969 frames."]


def test_tables_without_rows_are_left_out():
    assert [section.title.split(",")[0] for section in sections(FOUND)] == [
        "What each stage can use",
        "Cameras",
        "action",
        "Tasks",
    ]


def test_the_printed_report_holds_every_cell_note_and_error():
    page = as_text(FOUND)
    for section in sections(FOUND):
        for text in (*section.cells().to_numpy().ravel(), *section.notes):
            assert text in page
    assert page.count("- No depth") == 1
    # Text columns begin at one place.
    starts = {
        line.index("640 x" if "640 x" in line else "size")
        for line in page.splitlines()
        if "front" in line or "size" in line
    }
    assert len(starts) == 1


def test_the_verdict_is_on_the_stage_that_was_asked_about():
    assert verdict(FOUND).startswith("2 error(s)")
    assert verdict(replace(FOUND, asked="action")).startswith("ready for stage action")
