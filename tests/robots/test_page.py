"""The page and its printed form."""

from pathlib import Path

import numpy as np

from lerobot_gem.robots.findings import CameraPictures, JointRow, Preflight
from lerobot_gem.robots.page import as_text, cells, write_page


def found() -> Preflight:
    picture = np.zeros((4, 4, 3), np.uint8)
    return Preflight(
        "me/policy",
        "so101_follower at /dev/ttyACM0",
        joints=[JointRow("pan.pos", 1.0, (-10.0, 10.0), 2.0, -3.0, 4.0, None)],
        pictures=[CameraPictures("front", picture, picture), CameraPictures("wrist", None, picture)],
    )


def test_unknown_numbers_are_dashes():
    assert cells(found().joints[0]) == ("pan.pos", "1.0", "-10.0", "10.0", "2.0", "-3.0", "4.0", "-", "-")


def test_text_names_level_and_subject():
    one = found()
    one.add("task", "error", "No task text.")
    lines = as_text(one).splitlines()
    assert lines[0] == "me/policy on so101_follower at /dev/ttyACM0"
    assert "  ERROR    task  No task text." in lines
    assert lines[-1] == "1 error(s): do not act, 0 warning(s)"


def test_page_has_pictures_and_escapes_text(tmp_path: Path):
    one = found()
    one.add("task", "warning", "<b>")
    write_page(one, tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert "wrist gives no picture" in page
    assert "&lt;b&gt;" in page
