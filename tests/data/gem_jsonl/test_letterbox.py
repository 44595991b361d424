"""Letterboxing: pixels, depth and coordinates must agree."""

import contextlib
import time

import numpy as np
import pytest
from PIL import Image

from lerobot_gem.data.gem_jsonl.letterbox import Letterbox
from lerobot_gem.data.gem_jsonl.records import RecordError

WIDE = Letterbox((640, 480), (448, 448))


def test_geometry() -> None:
    assert (WIDE.inner, WIDE.offset, WIDE.has_bars) == ((448, 336), (0, 56), True)
    tall = Letterbox((30, 60), (64, 48))
    assert (tall.inner, tall.offset) == ((24, 48), (20, 0))
    assert not Letterbox((640, 480), (320, 240)).has_bars
    assert not Letterbox((641, 480), (320, 240)).has_bars, "one aspect ratio within 1 %"
    assert not Letterbox((640, 480), (448, 448), stretch=True).has_bars


@pytest.mark.parametrize("stretch", [False, True])
def test_a_moved_point_is_on_the_same_spot_of_image_and_depth(stretch: bool) -> None:
    box = Letterbox((640, 480), (448, 448), stretch)
    rgb = np.zeros((480, 640, 3), np.uint8)
    depth = np.full((480, 640), 2000, np.uint16)
    rgb[96:144, 480:544], depth[96:144, 480:544] = 255, 700  # centre: x 800, y 250 of 1000
    [x, y] = eval(box.text('"point_2d": [800, 250]').partition(": ")[2])
    column, row = round(x / 1000 * 448), round(y / 1000 * 448)
    assert (x, y) == ((800, 250) if stretch else (800, 312))
    assert np.asarray(box.image(Image.fromarray(rgb)))[row, column].min() > 250
    fitted = np.asarray(box.depth(Image.fromarray(depth)))
    assert fitted[row, column] == 700
    assert set(np.unique(fitted)) == ({700, 2000} if stretch else {0, 700, 2000}), (
        "nearest, bars without depth"
    )


def test_depth_of_another_size_but_one_aspect_ratio_is_fitted() -> None:
    depth = Image.fromarray(np.full((240, 320), 900, np.uint16))
    assert WIDE.depth(depth).size == (448, 448)
    with pytest.raises(RecordError, match="depth of another size"):
        WIDE.depth(Image.fromarray(np.full((240, 240), 900, np.uint16)))


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        (
            '[{"bbox_2d": [0, 0, 1000, 1000], "label": "cup"}]',
            '[{"bbox_2d": [0, 125, 1000, 875], "label": "cup"}]',
        ),
        ("{'point_2d': [500.0,500.25]}", "{'point_2d': [500.0, 500.19]}"),
        (
            'Report as {"bbox_2d": [x1, y1, x2, y2]} for 1.0.',
            'Report as {"bbox_2d": [x1, y1, x2, y2]} for 1.0.',
        ),
        ("The cup is 1.5 m away, left of (the) 3 forks.", "The cup is 1.5 m away, left of (the) 3 forks."),
        ("It is at (0.1, 0.2, 0.3) in metres.", "It is at (0.1, 0.2, 0.3) in metres."),
    ],
)
def test_coordinates_move_with_bars_and_only_then(text: str, moved: str) -> None:
    assert WIDE.text(text) == moved
    assert Letterbox((640, 480), (448, 448), stretch=True).text(text).replace(" ", "") == text.replace(
        " ", ""
    )
    assert Letterbox((640, 480), (640, 480)).text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "[(0.52, 0.31)]",
        "[12, 40, 80, 90]",
        "<box>(1,2),(3,4)</box>",
        '<point x="61.5" y="40">',
        '{"x": 0.4, "y": 0.2}',
        "[100, 200, 300, 200, 300, 400]",
        "(100,200,300,200,300,400,100,400)",
        "[12, 40, 80, 90, 0.98]",
        "[100 200 300 400]",
        "[12. 30.]",
        "[1e-1, 2e-1]",
        '["100", "200"]',
        "(100; 200)",
        "（100，200）",
        "at (12%, 34%)",
        "12%, 34%",
        "12% from the left",
        "at 34 px",
        "<loc0200><loc0100><loc0400><loc0300> cup",
        "<bin_12><bin_15>",
        "<patch_index_0044>",
        "<12><34>",
        "<|box_start|>(1,2),(3,4)<|box_end|>",
        '{"xmin": 100, "ymin": 200, "xmax": 300, "ymax": 400}',
        "left=100, top=200",
        "x_center 0.5",
        "x is 100 and y is 200",
        "coordinates: 120 by 40",
        "0.25, 0.5",
        "It is at 100, 200.",
        "The box is 100, 200, 300, 400.",
        "100 200 300 400",
        '{"bbox_2d": ["100", "200", "300", "400"]}',
        '{"bbox_2d": [100 200 300 400]}',
        '{"point_2d": [[100, 200]]}',
        '{"bbox_2d": [0.1, 0.2, 0.3, 0.4]}',  # shares of the image
        '{"bbox_2d": [500, 400, 100, 50]}',  # a corner with width and height
        "About twenty percent from the left of the picture.",
        "Ten per cent of the width.",
    ],
)
def test_coordinates_that_cannot_be_moved_for_certain_are_refused(text: str) -> None:
    with pytest.raises(RecordError) as error:
        WIDE.text(text)
    assert error.value.reason == "coordinates that bars would move"
    assert "--resize=stretch" in error.value.detail
    assert Letterbox((640, 480), (320, 240)).text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "There are 2 cups, 3 forks.",
        "(1) Open the door. (2) Close it.",
        "The cup is at (0.15, 0.25, 0.35) m.",
        "I count 4 and 5.",
        "At 12:30 the robot moves 20 cm to the left.",
        "50% of the cups are red.",
        "Is it 1.2 or 3.4 metres away?",
        "The image has 3 cups (about 20 %).",
    ],
)
def test_other_numbers_are_no_coordinates(text: str) -> None:
    assert WIDE.text(text) == text


@pytest.mark.parametrize("text", ["[1100, 20, 1200, 700]", "<box>1100 20</box> (1100; 20)", "at 1200 px"])
@pytest.mark.parametrize("stretch", [False, True])
def test_pixels_in_any_notation_are_refused_when_the_image_is_resized(text: str, stretch: bool) -> None:
    with pytest.raises(RecordError) as error:
        Letterbox((1280, 720), (640, 480) if stretch else (640, 360), stretch).text(text)
    assert error.value.reason == "coordinates in pixels"
    assert Letterbox((1280, 720), (1280, 720)).text(text) == text


@pytest.mark.parametrize("part", ["1\n\n", "1  ", "(1  ", "1 % ", "1\t\t, ", '1 " '])
def test_a_long_row_of_numbers_takes_no_hours(part: str) -> None:
    before = time.process_time()
    with contextlib.suppress(RecordError):
        Letterbox((640, 480), (320, 240)).text(part * 5_000 + "z")
    assert time.process_time() - before < 2


def test_pixel_coordinates_are_refused_when_the_image_is_resized() -> None:
    text = '{"bbox_2d": [10, 20, 1200, 700]}'
    with pytest.raises(RecordError, match="coordinates in pixels"):
        Letterbox((1280, 720), (640, 360)).text(text)
    assert Letterbox((1280, 720), (1280, 720)).text(text) == text
    with pytest.raises(RecordError, match="coordinates that bars would move"):
        WIDE.text('{"point_2d": [10, 20, 30]}')
    with pytest.raises(RecordError, match="coordinates that bars would move"):
        WIDE.text('{"point_2d": [10, y]}')
