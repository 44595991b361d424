"""A record of the GEM format as a sample of a LeRobot dataset: files of one size, and messages."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lerobot.utils.constants import OBS_IMAGES
from PIL import Image

from lerobot_gem.data.gem_jsonl.clips import clip_frames
from lerobot_gem.data.gem_jsonl.images import (
    RgbFile,
    millimetres,
    read_depth,
    read_rgb,
    write_rgb,
)
from lerobot_gem.data.gem_jsonl.letterbox import Letterbox, Size
from lerobot_gem.data.gem_jsonl.records import GemRecord, JsonObject, RecordError, depth_file, image_file
from lerobot_gem.processing.depth_cameras import depth_key
from lerobot_gem.processing.depth_target import MAX_DEPTH_MM, MIN_DEPTH_MM
from lerobot_gem.processing.language import MESSAGES
from lerobot_gem.storage.images import encode_depth_png, image_features, image_suffix


@dataclass(frozen=True)
class SampleFormat:
    """What every sample of a dataset looks like.

    Attributes:
        num_images: Images of each sample: the cameras `image`, `image2`, ...
        size: Width and height of all images and depth maps.
        depth: Whether each camera has a depth camera.
        stretch: Fit images by changing their aspect ratio, instead of adding bars.
        depth_unit_mm: Millimetres that a step of a 16-bit depth map stands for.
    """

    num_images: int
    size: Size
    depth: bool
    stretch: bool
    depth_unit_mm: float

    @property
    def cameras(self) -> list[str]:
        """Keys of the cameras."""
        numbers = ("", *range(2, self.num_images + 1))
        return [f"{OBS_IMAGES}.image{number}" for number in numbers]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """LeRobot's features: images, depth in millimetres, and the column `messages`."""
        width, height = self.size
        names = [camera.removeprefix(f"{OBS_IMAGES}.") for camera in self.cameras]
        images = image_features(names, height, width, depth=self.depth, unit="mm")
        return images | {MESSAGES: {"dtype": "string", "shape": (1,), "names": None}}


class Sample(NamedTuple):
    """A sample, ready to be stored.

    Attributes:
        files: Feature -> path of a file to store as it is.
        messages: Value of the column `messages`.
        counts: What was done, for the report.
    """

    files: dict[str, str]
    messages: str
    counts: Counter[str]


def make_sample(
    record: GemRecord, folder: Path, sample_format: SampleFormat, scratch: Path, name: str
) -> Sample:
    """Decode, check and fit what a record shows.

    Args:
        record: The record.
        folder: What its paths start from.
        sample_format: Of the dataset.
        scratch: Folder for files that are written; they are needed until the sample is stored.
        name: Begins the names of these files, and of no other sample's.

    Raises:
        RecordError: The record can't be used.
    """
    counts: Counter[str] = Counter()
    files: dict[str, str] = {}
    boxes: list[Letterbox] = []
    depths: list[JsonObject | None] = []
    images = _images(record, folder, sample_format.num_images)
    for place, (camera, (rgb, path)) in enumerate(zip(sample_format.cameras, images, strict=True)):
        written = scratch / f"{name}-{place}"
        box = Letterbox(rgb.image.size, sample_format.size, sample_format.stretch)
        boxes.append(box)
        files[camera] = str(_fitted_rgb(rgb, path, box, written, counts))
        if sample_format.depth:
            depth = depth_file(folder, record.images[place]) if record.images else None
            written = written.with_suffix(image_suffix(is_depth=True))
            depths.append(_fit_depth(depth, folder, box, sample_format.depth_unit_mm, written, counts))
            files[depth_key(camera)] = str(written)
    about = sample_format.cameras[0] if sample_format.num_images == 1 else None
    messages = [
        {**message, "content": _moved_text(message["content"], boxes)}
        for message in record.messages(about, depths)
    ]
    counts["system turns left out"] += record.has_system_turn
    return Sample(files, json.dumps(messages), counts)


def _images(record: GemRecord, folder: Path, num_images: int) -> Iterator[tuple[RgbFile, Path | None]]:
    """The images of a record, or the frames of its clip, each with its file if it has one."""
    if record.video is None:
        for image in record.images:
            file = image_file(folder, image)
            yield read_rgb(file), file
    else:
        for frame in clip_frames(image_file(folder, record.video), num_images):
            yield RgbFile(frame, is_usable=False, is_lossy=True), None


def _fitted_rgb(rgb: RgbFile, path: Path | None, box: Letterbox, written: Path, counts: Counter[str]) -> Path:
    """The file of an image in the dataset's size: its own if that will do, else one that is written."""
    if path is not None and rgb.is_usable and box.source == box.target:
        return path
    counts["images encoded anew"] += 1
    counts["images with bars"] += box.has_bars
    return write_rgb(box.image(rgb.image), written, lossy=rgb.is_lossy)


def _fit_depth(
    name: str | None, folder: Path, box: Letterbox, unit_mm: float, written: Path, counts: Counter[str]
) -> JsonObject | None:
    """Write the depth map of an image in the dataset's size.

    Args:
        name: Its path from `folder`; None writes a map without depth.
        folder: See there.
        box: How the image was fitted.
        unit_mm: Millimetres that a step of a 16-bit depth map stands for.
        written: The file to write.
        counts: What was done.

    Returns:
        What the record is to keep of it, for the export.
    """
    if name is None:
        counts["images without depth"] += 1
        width, height = box.target
        written.write_bytes(encode_depth_png(np.zeros((height, width), np.uint16)))
        return None
    depth = read_depth(folder / name)
    values = millimetres(depth, unit_mm)
    image = Image.fromarray(values)
    fitted = box.depth(image)
    if depth.bits == 16 and unit_mm == 1 and fitted is image:
        shutil.copyfile(folder / name, written)
    else:
        counts["depth maps encoded anew"] += 1
        written.write_bytes(encode_depth_png(np.asarray(fitted)))
    counts["depth maps"] += 1
    counts["depth maps of 8 bits"] += depth.bits == 8
    counts["depth pixels"] += values.size
    counts["valid depth pixels"] += int(((values > MIN_DEPTH_MM) & (values < MAX_DEPTH_MM)).sum())
    return {"file": name, "bits": depth.bits}


def _moved_text(text: str, boxes: Sequence[Letterbox]) -> str:
    """A text about all images, with its coordinates moved."""
    texts = {box.text(text) for box in boxes}
    if len(texts) > 1:
        raise RecordError(
            "coordinates that bars would move",
            "the images get different bars, and the text does not say whose coordinates these are",
        )
    return texts.pop()
