"""Image and depth files as an import reads and writes them.

LeRobot's image storage keeps whole files, so a file that can be used as it is costs no quality and no encoding. An image
that must be changed is written as JPEG if it was compressed with loss before, else as PNG.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from lerobot_gem.data.gem_jsonl.letterbox import Size
from lerobot_gem.data.gem_jsonl.limits import MOST_FILE_BYTES
from lerobot_gem.data.gem_jsonl.records import RecordError, is_file
from lerobot_gem.storage.images import QUICK_PNG_LEVEL, TooManyPixelsError, open_picture

# One step of an 8-bit depth map in millimetres. Such a map has no unit. With this step all its values but 0 are within the
# range that counts as depth (11 mm to 9.99 m); its depth target is the release's, whose colormap does not depend on the scale.
RELATIVE_STEP_MM = 39

_LOSSY = ("JPEG", "MPO", "WEBP")
_JPEG_QUALITY = 95
_DEPTH_BITS = {"L": 8, "I;16": 16}


class RgbFile(NamedTuple):
    """A decoded image.

    Attributes:
        image: RGB, with its pixels as they are stored.
        is_usable: Whether any reader of the file gets these pixels: it holds RGB, and no tag that turns the image (the
            release ignores orientation tags, the `datasets` library obeys them).
        is_lossy: Whether the file was compressed with loss.
    """

    image: Image.Image
    is_usable: bool
    is_lossy: bool


class DepthFile(NamedTuple):
    """A decoded depth map.

    Attributes:
        image: Mode "L" or "I;16".
        bits: Bits of each pixel, 8 or 16.
    """

    image: Image.Image
    bits: int


def image_size(path: Path) -> Size:
    """Width and height, from the file's header.

    Raises:
        RecordError: There is no such file, it is no image, or one that is too large.
    """
    if not is_file(path):
        raise RecordError(
            "missing image",
            f"there is no file {path!s:.500}, nor one in the folder 'images' beside the records",
        )
    with _opened(path, "broken image") as image:
        return image.size


@contextmanager
def _opened(path: Path, broken: str) -> Iterator[Image.Image]:
    """A picture whose header was read.

    Args:
        path: Its file.
        broken: Reason that is given if it can't be read, now or by what the caller does with it.

    Raises:
        RecordError: It can't be read, or it is too large.
    """
    try:
        if (size := path.stat().st_size) > MOST_FILE_BYTES:
            raise RecordError("large file", f"{path} has {size} bytes; expected at most {MOST_FILE_BYTES}")
        with open_picture(path) as image:
            yield image
    except RecordError:
        raise
    except (TooManyPixelsError, Image.DecompressionBombError) as error:
        raise RecordError("too many pixels", f"{path}: {error}") from error
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise RecordError(broken, f"{path}: {error}") from error


def read_rgb(path: Path) -> RgbFile:
    """Decode an image.

    Raises:
        RecordError: It is broken, too large, or of floats.
    """
    with _opened(path, "broken image") as image:
        image.load()
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        lossy = image.format in _LOSSY
    usable = image.mode == "RGB" and upright
    return RgbFile(_eight_bits(image, path).convert("RGB"), usable, lossy)


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """A picture of 16 bits for each pixel scaled to 8, where Pillow would clip it to white; any other as it is.

    Raises:
        RecordError: It has values without a known largest one, such as floats.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise RecordError(
            "image format",
            f"{path}: the mode {image.mode!r} has no largest value: expected 8 or 16 bits for each channel",
        )
    return image


def read_depth(path: Path) -> DepthFile:
    """Decode a depth map.

    Raises:
        RecordError: It is broken, too large, or not of one channel with 8 or 16 bits.
    """
    with _opened(path, "broken depth") as image:
        image.load()
    if image.mode not in _DEPTH_BITS:
        raise RecordError(
            "depth format", f"{path} has the mode {image.mode!r}; expected one channel of 8 or 16 bits"
        )
    return DepthFile(image, _DEPTH_BITS[image.mode])


def millimetres(depth: DepthFile, unit_mm: float) -> NDArray[np.uint16]:
    """A depth map (H, W) in millimetres.

    Args:
        depth: Its values are in `unit_mm` if it has 16 bits, and in no unit if it has 8.
        unit_mm: Millimetres that a step of a 16-bit depth map stands for.
    """
    values = np.asarray(depth.image)
    step = RELATIVE_STEP_MM if depth.bits == 8 else unit_mm
    if step == 1:
        return values.astype(np.uint16)
    return np.rint(values * np.float64(step)).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def write_rgb(image: Image.Image, path: Path, *, lossy: bool) -> Path:
    """Write an image as JPEG or PNG; returns the path with that suffix."""
    if lossy:
        path = path.with_suffix(".jpg")
        image.save(path, quality=_JPEG_QUALITY)
    else:
        path = path.with_suffix(".png")
        image.save(path, compress_level=QUICK_PNG_LEVEL)
    return path
