"""Reading and writing image and depth files."""

import numpy as np
import pytest
from PIL import Image

from lerobot_gem.data.gem_jsonl.images import (
    image_size,
    millimetres,
    read_depth,
    read_rgb,
    write_rgb,
)
from lerobot_gem.data.gem_jsonl.limits import MOST_FILE_BYTES
from lerobot_gem.data.gem_jsonl.records import RecordError
from lerobot_gem.processing.depth_target import MAX_DEPTH, MIN_DEPTH
from lerobot_gem.storage.images import encode_depth_png
from tests.data.conftest import GemFolder
from tests.storage.test_images import bomb


@pytest.mark.parametrize(
    ("name", "mode", "usable", "lossy"),
    [
        ("a.jpg", "RGB", True, True),
        ("a.webp", "RGB", True, True),
        ("a.png", "RGB", True, False),
        ("a.png", "RGBA", False, False),
        ("a.png", "P", False, False),
        ("a.jpg", "L", False, True),
    ],
)
def test_which_files_can_be_used_as_they_are(
    folder: GemFolder, name: str, mode: str, usable: bool, lossy: bool
) -> None:
    path = folder.root / folder.image(name, mode=mode)
    found = read_rgb(path)
    assert (found.image.mode, found.is_usable, found.is_lossy) == ("RGB", usable, lossy)
    assert image_size(path) == found.image.size == (64, 48)


def test_16_bits_are_scaled_and_not_clipped(folder: GemFolder) -> None:
    path = folder.root / "grey.png"
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).round().astype(np.uint16)
    Image.fromarray(values).save(path)
    found = read_rgb(path)
    assert not found.is_usable
    scaled = np.asarray(found.image).astype(float)
    assert np.abs(scaled - values[..., None] / 257).max() <= 0.51
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(folder.root / "float.tiff")
    with pytest.raises(RecordError, match="image format.*mode 'F' has no largest value"):
        read_rgb(folder.root / "float.tiff")


def test_an_orientation_tag_is_ignored_as_in_the_release(folder: GemFolder) -> None:
    path = folder.root / folder.image("a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.save(path, exif=exif)
    found = read_rgb(path)
    assert found.image.size == (64, 48) and not found.is_usable


def test_broken_and_missing_files(folder: GemFolder) -> None:
    with pytest.raises(RecordError, match="missing image"):
        image_size(folder.root / "none.jpg")
    with pytest.raises(RecordError, match="missing image"):
        image_size(
            folder.root / ("data:image/png;base64," + 10_000 * "iVBORw0KGgo")
        )  # no path that a file may have
    path = folder.root / folder.image("a.jpg")
    path.write_bytes(path.read_bytes()[:-400])
    assert image_size(path) == (64, 48), "the header is whole"
    with pytest.raises(RecordError, match="broken image"):
        read_rgb(path)
    path.write_text("no image")
    for read, reason in (
        (image_size, "broken image"),
        (read_rgb, "broken image"),
        (read_depth, "broken depth"),
    ):
        with pytest.raises(RecordError, match=reason):
            read(path)


def test_a_small_file_of_many_pixels_is_not_decoded(folder: GemFolder) -> None:
    path = folder.root / "bomb.png"
    path.write_bytes(bomb(13_000))
    assert path.stat().st_size < 30_000
    for read in (image_size, read_rgb, read_depth):
        with pytest.raises(RecordError, match="too many pixels"):
            read(path)


def test_a_file_is_no_larger_than_any_picture_may_be(folder: GemFolder) -> None:
    path = folder.root / folder.image("a.png")
    with path.open("ab") as stream:
        stream.truncate(MOST_FILE_BYTES + 1)
    with pytest.raises(RecordError, match="large file"):
        image_size(path)


def test_depth_of_16_bits_is_in_the_unit_asked_for(folder: GemFolder) -> None:
    depth = read_depth(folder.root / folder.depth("a.jpg"))
    assert depth.bits == 16
    values = np.asarray(depth.image)
    assert np.array_equal(millimetres(depth, 1.0), values)
    assert np.array_equal(millimetres(depth, 0.25), np.rint(values / 4))
    assert millimetres(depth, 100.0).max() == 65535


def test_every_value_of_8_bits_but_0_counts_as_depth(folder: GemFolder) -> None:
    path = folder.root / "depth.png"
    path.write_bytes(encode_depth_png(np.arange(256, dtype=np.uint8)[None]))
    depth = read_depth(path)
    metres = millimetres(depth, 5.0)[0] / 1000
    assert depth.bits == 8 and metres[0] == 0
    assert metres[1] > MIN_DEPTH and metres[255] < MAX_DEPTH
    assert np.allclose(metres[1:] / metres[1], np.arange(1, 256)), (
        "8 bits have no unit: --depth_unit_mm is not theirs"
    )


def test_colourised_depth_is_refused(folder: GemFolder) -> None:
    with pytest.raises(RecordError, match="depth format"):
        read_depth(folder.root / folder.image("depth.png"))


def test_written_files_have_the_suffix_of_their_format(folder: GemFolder) -> None:
    image = Image.fromarray(np.full((4, 4, 3), 90, np.uint8))
    for lossy, suffix in ((True, ".jpg"), (False, ".png")):
        path = write_rgb(image, folder.root / "x", lossy=lossy)
        assert path.suffix == suffix
        assert np.array_equal(np.asarray(read_rgb(path).image), np.asarray(image))
