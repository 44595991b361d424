"""Image files of simulated frames, which LeRobot stores as they are."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
