"""Image files of simulated frames and of depth, which LeRobot stores as they are, pictures on pages, and pictures of strangers."""

import base64
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import OBS_IMAGES
from numpy.typing import NDArray
from PIL import Image

from lerobot_gem.processing.depth_cameras import depth_key

# Longest side of a picture on a page; larger ones are made smaller.
_LONGEST_SIDE = 480

# Of one picture: 8192 x 8192. PNG can hold ten thousand pixels in a byte.
MOST_PIXELS = 2**26
# Of Pillow's readers, those that only read: EPS, for one, is run by Ghostscript.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")


def image_features(
    cameras: Iterable[str], height: int, width: int, *, depth: bool, unit: str = "m"
) -> dict[str, dict[str, Any]]:
    """LeRobot features of cameras whose frames are kept as image files.

    Args:
        cameras: Their names; the keys are `observation.images.<name>`.
        height: Of the images in pixels.
        width: Of the images in pixels.
        depth: Each has depth beside it.
        unit: Of depth, "m" or "mm".
    """
    features: dict[str, dict[str, Any]] = {}
    for camera in cameras:
        key, names = f"{OBS_IMAGES}.{camera}", ["height", "width", "channels"]
        features[key] = {"dtype": "image", "shape": (height, width, 3), "names": names}
        if depth:
            features[depth_key(key)] = {
                "dtype": "image",
                "shape": (height, width, 1),
                "names": names,
                "info": {"is_depth_map": True, "depth_unit": unit},
            }
    return features


def image_suffix(is_depth: bool) -> str:
    """How the name of an image file ends that `LeRobotDataset.save_episode` is to store.

    LeRobot reads a file named .tiff as depth, with all its bits, when it computes statistics, and every other as RGB.
    It decides nothing else by the name, and Pillow finds the format in the file.
    """
    return ".tiff" if is_depth else ".bmp"


def encode(image: NDArray[Any]) -> bytes:
    """The file of an image: BMP for RGB, PFM for depth.

    Both are lossless and quick to read. LeRobot's reader decodes the images of every frame of an action chunk, not only
    of the frame that it delivers, so that the decoder decides how fast training reads: BMP takes a tenth of the time of
    PNG and twice its space, PFM half of the time of TIFF, whose tags Pillow parses in Python, and the same space
    (benchmarks/reading.py).

    Args:
        image: (H, W, 3) uint8, or (H, W, 1) float32.
    """
    buffer = io.BytesIO()
    if image.shape[-1] == 3:
        Image.fromarray(image).save(buffer, "BMP")
    else:
        Image.fromarray(image[..., 0]).save(buffer, "PPM")  # Pillow's writer of PFM, too
    return buffer.getvalue()


# On 16-bit depth maps of 448 x 448 pixels it takes a third of the time of PIL's default, 6; files are 1 to 5 % (noisy) to 33 %
# (smooth) larger.
QUICK_PNG_LEVEL = 3


def encode_depth_png(depth: NDArray[np.integer], compress_level: int = QUICK_PNG_LEVEL) -> bytes:
    """The PNG file of a depth map (H, W) of 8 or 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()


def decode(encoded: bytes) -> NDArray[Any]:
    """The pixels (C, H, W) of an image file."""
    image = np.asarray(Image.open(io.BytesIO(encoded)))
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


class TooManyPixelsError(ValueError):
    """A picture has more pixels than `MOST_PIXELS`; a small file can hold any number of them."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(
            f"a picture of {width} x {height} pixels: expected at most {MOST_PIXELS}. Make it smaller."
        )


def open_picture(source: Path | io.BytesIO) -> Image.Image:
    """Open a picture that may be somebody else's; its header is read, its pixels are not yet decoded.

    Args:
        source: Its file, or the file's content.

    Raises:
        TooManyPixelsError: It has too many pixels.
        OSError: It is no picture of a known format. A damaged one may raise nearly anything, here and when it is decoded.
    """
    Image.init()
    known = [name for name in _FORMATS if name in Image.OPEN]  # AVIF is new in Pillow 11.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error of ours, in a moment
        image = Image.open(source, formats=known)
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise TooManyPixelsError(image.width, image.height)
    return image


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as an HTML file holds it, no larger than a page needs."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
