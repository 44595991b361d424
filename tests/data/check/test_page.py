"""The page with pictures: what it shows where, that it is safe, and that a browser draws it."""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lerobot_gem.data.check.facts import CameraFacts, CameraView, Inspection, ShownFrame, TaskFacts
from lerobot_gem.data.check.page import Shape, as_html, shapes_of, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FRONT, WRIST = "observation.images.image", "observation.images.image2"
WIDTH, HEIGHT = 200, 100


def exchange(question: str, answer: str, camera: str | None = FRONT):
    return [
        {"role": "user", "content": question, "camera": camera},
        {"role": "assistant", "content": answer},
    ]


def inspection(*messages) -> Inspection:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    depth = np.full((32, 64, 3), 200, np.uint8)
    views = [CameraView(FRONT, rgb, depth, (0.5, 2.25), 0.125), CameraView(WRIST, rgb)]
    frame = ShownFrame(7, 1, 0.4, "get <b>milk</b>", views, list(messages))
    return Inspection("local/noise", Path("noise"), None, 5, 1, 10, shown=[frame])


@pytest.mark.parametrize(
    ("answer", "shapes"),
    [
        ('[{"point_2d": [500, 250], "label": "milk"}]', [Shape((100, 25), "milk")]),
        ('{"bbox_2d": [0, 100, 1000, 900]}', [Shape((0, 10, 200, 90), "")]),
        ('```json\n[{"point_2d": [10.5, 0]}]\n```', [Shape((2.1, 0), "")]),
        ('{"label": "cup", "point_format": "xy", "point": [12, 34]}', [Shape((12, 34), "cup")]),
        ('{"detections": [{"label": "cup", "bbox": [1, 2, 3, 4]}]}', [Shape((1, 2, 3, 4), "cup")]),
        ("On the left.", []),
        ("3", []),
        ('[{"point_2d": ["a", 1]}, {"point_2d": [1]}, "x"]', []),
    ],
)
def test_points_and_boxes_of_answers_are_in_pixels(answer, shapes):
    assert shapes_of(answer, WIDTH, HEIGHT) == shapes


def test_shapes_are_drawn_in_the_picture_that_they_are_about():
    page = as_html(
        inspection(
            *exchange("Where?", '[{"point_2d": [500, 250]}]'),
            *exchange("Box?", '{"bbox_2d": [100, 100, 200, 300], "label": "cup"}', WRIST),
        )
    )
    front, wrist = (part.split("</svg>")[0] for part in page.split("<svg")[1:])
    assert 'cx="100.0" cy="25.0"' in front and "<rect" not in front
    assert (
        '<rect x="20.0" y="10.0" width="20.0"' in wrist and ">cup</text>" in wrist and "<circle" not in wrist
    )


def test_text_of_the_dataset_cannot_become_markup():
    found = inspection(*exchange("<script>alert(1)</script>", "<img src=x>"))
    page = as_html(replace(found, tasks=[TaskFacts("<script>in a table</script>", 1, 10)]))
    assert "<script>" not in page and "<img src=x>" not in page and "<b>milk" not in page
    assert page.count("&lt;script&gt;") == 2


def test_the_page_needs_no_other_file(tmp_path: Path):
    path = tmp_path / "new" / "page.html"
    odd = CameraFacts(FRONT, (WIDTH, HEIGHT), "image", None, one_colour=0.5)
    write_page(replace(inspection(), cameras=[odd]), path)
    page = path.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 4  # the legend, two pictures, one depth map
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    sizes = {Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size for source in sources}
    assert sizes == {(128, 8), (WIDTH, HEIGHT), (64, 32)}
    assert "depth: 0.50 to 2.25 m, 12.5% invalid" in page and "warning(s)" in page


def _take_picture(page: Path, picture: Path, profile: Path) -> None:
    """As a browser shows it. On a busy core Chromium hangs now and then, before it has begun: it gets a second try."""
    for attempt in range(2):
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1180,900",
            f"--user-data-dir={profile}{attempt}",
            f"--screenshot={picture}",
            f"file://{page}",
        ]
        # A session of its own, whose processes end with it; they would keep pipes open.
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        try:
            assert process.wait(timeout=60) == 0
            return
        except subprocess.TimeoutExpired:
            continue
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("Chromium did not end within a minute, twice.")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_the_point_where_it_is(tmp_path: Path):
    found = inspection(*exchange("Where?", '[{"point_2d": [500, 500]}]'))
    write_page(found, tmp_path / "page.html")
    _take_picture(tmp_path / "page.html", tmp_path / "page.png", tmp_path / "profile")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    black = np.argwhere((pixels == 0).all(axis=-1))
    # The first picture: the black block on the left. Its point, in the first colour, is in its middle.
    left = black[black[:, 1] < black[:, 1].min() + 236]
    red = np.argwhere(np.abs(pixels - (0xFF, 0x4D, 0x4D)).max(axis=-1) < 12)
    top, bottom = left[:, 0].min(), left[:, 0].max()
    in_picture = red[(red[:, 0] >= top) & (red[:, 0] <= bottom)]
    assert len(in_picture) > 10
    assert in_picture.mean(axis=0) == pytest.approx(
        ((top + bottom) / 2, (left[:, 1].min() + left[:, 1].max()) / 2), abs=1.5
    )
