"""The printed page."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lerobot_gem.data.check.facts import (
    CameraFacts,
    Inspection,
    StageFacts,
    TaskFacts,
    VectorFacts,
)
from lerobot_gem.data.check.report import as_text, tables

FOUND = Inspection(
    "local/noise",
    Path("noise"),
    "panda",
    5,
    3,
    1234,
    sampled=200,
    padding=0.25,
    cameras=[CameraFacts("observation.images.image", (640, 480), "video", None, 0.0)],
    vectors=[VectorFacts("action", ["x", "grip"], np.array([-1.0, 0]), np.array([0.5, 0]), 0, [], True)],
    tasks=[TaskFacts(f"task {number}", 1, 20 - number) for number in range(17)],
    stages=[
        StageFacts("joint", depth=0.5, language=1.0, errors=["No depth", "too"]),
        StageFacts("action", depth=0.5, language=1.0, action=1.0, lacking=None),
        StageFacts("connector", depth=0.0, lacking="no depth", errors=["No depth"]),
    ],
)


def lines(found: Inspection) -> list[str]:
    return [" ".join(line.split()) for line in as_text(found).splitlines()]


def test_the_page_says_what_was_found():
    page = lines(FOUND)
    assert page[0] == (
        "local/noise: 3 episodes, 1,234 frames, 5 fps, robot panda; pictures of 200 frames looked at"
    )
    for line in (
        "joint 2 error(s) 50.0% 100.0% -",
        "action ready 50.0% 100.0% 100.0%",
        "connector no depth 0.0% - -",
        "observation.images.image 640 x 480 video - 0.0%",
        "x -1 0.5",
        "grip 0 0 constant",
        "25.0% of the actions in chunks lie past the end of their episode (no loss).",
        "20 1 task 0",
        "2 more tasks with 9 frames.",
        "- No depth",
    ):
        assert line in page
    assert page[-1] == "2 error(s) for the stages it is made for, 0 warning(s)"
    assert len(page) < 60


def test_the_verdict_is_on_the_stage_that_was_asked_about():
    good = replace(FOUND, asked="action", warnings=["odd"])
    assert lines(good)[-1] == "ready for stage action, 1 warning(s)"
    assert "action (asked) ready 50.0% 100.0% 100.0%" in lines(good)


def test_tables_without_rows_are_left_out_and_rows_are_as_long_as_the_header():
    titles = [table.title for table in tables(FOUND)]
    assert "Depth" not in titles and "Cameras" in titles
    for table in tables(FOUND):
        assert {len(row) for row in table.rows} == {len(table.header)}
