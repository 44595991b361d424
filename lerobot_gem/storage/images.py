"""Image files of simulated frames, which LeRobot stores as they are, and pictures on pages."""

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from lerobot.utils.constants import OBS_IMAGES
from numpy.typing import NDArray
from PIL import Image

from lerobot_gem.processing.depth_cameras import DEPTH_SUFFIX

# Longest side of a picture on a page; larger ones are made smaller.
_LONGEST_SIDE = 480


def image_features(
    cameras: Iterable[str], height: int, width: int, *, depth: bool
) -> dict[str, dict[str, Any]]:
    """LeRobot features of cameras whose frames are kept as image files.

    Args:
        cameras: Their names; the keys are `observation.images.<name>`.
        height: Of the images in pixels.
        width: Of the images in pixels.
        depth: Each has depth in metres beside it.
    """
    features: dict[str, dict[str, Any]] = {}
    for camera in cameras:
        key, names = f"{OBS_IMAGES}.{camera}", ["height", "width", "channels"]
        features[key] = {"dtype": "image", "shape": (height, width, 3), "names": names}
        if depth:
            features[f"{key}{DEPTH_SUFFIX}"] = {
                "dtype": "image",
                "shape": (height, width, 1),
                "names": names,
                "info": {"is_depth_map": True, "depth_unit": "m"},
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


def decode(encoded: bytes) -> NDArray[Any]:
    """The pixels (C, H, W) of an image file."""
    image = np.asarray(Image.open(io.BytesIO(encoded)))
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as an HTML file holds it, no larger than a page needs."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
