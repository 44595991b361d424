"""Image files: exact, and read by LeRobot as what they are."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.io_utils import load_image_as_numpy
from PIL import Image

from lerobot_gem.storage.images import (
    TooManyPixelsError,
    data_uri,
    decode,
    encode,
    image_features,
    image_suffix,
    open_picture,
)

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).uniform(0.2, 12, (6, 9, 1)).astype(np.float32)


@pytest.mark.parametrize("image", [RGB, DEPTH])
def test_what_is_encoded_is_decoded_again(image: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode(image)), image.transpose(2, 0, 1))


def bomb(side: int) -> bytes:
    """A PNG of some 20 kB with one bit for each of many pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    assert open_picture(io.BytesIO(bomb(64))).size == (64, 64)
    with pytest.raises(
        TooManyPixelsError, match="13000 x 13000 pixels: expected at most 67108864. Make it smaller"
    ):
        open_picture(io.BytesIO(bomb(13_000)))


def test_a_format_that_another_program_reads_is_none_of_ours() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    with pytest.raises(OSError, match="cannot identify"):
        open_picture(buffer)


def test_lerobots_statistics_are_those_of_the_image(tmp_path: Path) -> None:
    for image in (RGB, DEPTH):
        file = tmp_path / f"image{image_suffix(is_depth=image is DEPTH)}"
        file.write_bytes(encode(image))
        found = load_image_as_numpy(str(file), dtype=np.uint8)
        np.testing.assert_array_equal(found, image.transpose(2, 0, 1))


def test_depth_stands_beside_each_camera() -> None:
    features = image_features(["front"], 6, 8, depth=True)
    assert {key: feature["shape"] for key, feature in features.items()} == {
        "observation.images.front": (6, 8, 3),
        "observation.images.front_depth": (6, 8, 1),
    }
    assert features["observation.images.front_depth"]["info"] == {"is_depth_map": True, "depth_unit": "m"}
    assert list(image_features(["front"], 6, 8, depth=False)) == ["observation.images.front"]


def test_a_page_holds_no_larger_picture_than_it_needs() -> None:
    uri = data_uri(np.zeros((960, 320, 3), np.uint8))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    assert picture.size == (160, 480)
