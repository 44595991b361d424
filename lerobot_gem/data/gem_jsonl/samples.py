"""A record of the GEM format as a sample of a LeRobot dataset: files of one size, and messages."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lerobot_gem.data.gem_jsonl.clips import clip_frames
from lerobot_gem.data.gem_jsonl.images import (
    RgbFile,
    millimetres,
    read_depth,
    read_rgb,
    write_depth,
    write_rgb,
)
from lerobot_gem.data.gem_jsonl.letterbox import Letterbox, Size
from lerobot_gem.data.gem_jsonl.records import GemRecord, JsonObject, RecordError, depth_file
from lerobot_gem.processing.depth_target import MAX_DEPTH_MM, MIN_DEPTH_MM
from lerobot_gem.processing.language import MESSAGES
from lerobot_gem.storage.images import image_suffix


@dataclass(frozen=True)
class SampleLayout:
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
        return [f"observation.images.image{number if number > 1 else ''}" for number in self._numbers]

    @property
    def _numbers(self) -> range:
        return range(1, self.num_images + 1)

    def features(self, depth_kind: str = "metric") -> dict[str, dict[str, Any]]:
        """LeRobot's features: images, depth in millimetres, and the column `messages`.

        Args:
            depth_kind: What the dataset says of its depth: "metric", "relative" or "mixed".
        """
        (width, height), names = self.size, ["height", "width", "channels"]
        features: dict[str, dict[str, Any]] = {}
        for camera in self.cameras:
            features[camera] = {"dtype": "image", "shape": (height, width, 3), "names": names}
            if self.depth:
                features[f"{camera}_depth"] = {
                    "dtype": "image",
                    "shape": (height, width, 1),
                    "names": names,
                    "info": {"is_depth_map": True, "depth_unit": "mm", "depth_kind": depth_kind},
                }
        features[MESSAGES] = {"dtype": "string", "shape": (1,), "names": None}
        return features


class Sample(NamedTuple):
    """A sample, ready to be stored.

    Attributes:
        files: Feature -> path of a file to store as it is.
        messages: For the column of that name.
        counts: What was done, for the report.
    """

    files: dict[str, str]
    messages: str
    counts: Counter[str]


def make_sample(record: JsonObject, folder: Path, layout: SampleLayout, scratch: Path, name: str) -> Sample:
    """Decode, check and fit what a record shows.

    Args:
        record: As parsed from JSON.
        folder: What its paths start from.
        layout: Of the dataset.
        scratch: Folder for files that are written; they are needed until the sample is stored.
        name: Begins these files' names; of no other sample.

    Raises:
        RecordError: The record can't be used.
    """
    parsed = GemRecord.parse(record)
    counts: Counter[str] = Counter()
    files: dict[str, str] = {}
    boxes, depths = [], []
    pictures: list[RgbFile | Path] = [folder / image for image in parsed.images]
    if parsed.video is not None:
        frames = clip_frames(folder / parsed.video, layout.num_images)
        pictures = [RgbFile(frame, is_usable=False, is_lossy=True) for frame in frames]
    for place, (camera, picture) in enumerate(zip(layout.cameras, pictures, strict=True)):
        rgb = read_rgb(picture) if isinstance(picture, Path) else picture
        box = Letterbox(rgb.image.size, layout.size, layout.stretch)
        boxes.append(box)
        if isinstance(picture, Path) and rgb.is_usable and box.source == box.target:
            files[camera] = str(picture)
        else:
            counts["images encoded anew"] += 1
            counts["images with bars"] += box.has_bars
            path = scratch / f"{name}-{place}"
            files[camera] = str(write_rgb(box.image(rgb.image), path, lossy=rgb.is_lossy))
        if layout.depth:
            image = parsed.images[place] if parsed.images else None
            depth_name = depth_file(folder, image) if image is not None else None
            path = scratch / f"{name}-{place}{image_suffix(is_depth=True)}"
            depths.append(_store_depth(depth_name, folder, box, layout, path, counts))
            files[f"{camera}_depth"] = str(path)
    messages = parsed.messages(layout.cameras[0] if layout.num_images == 1 else None, depths)
    moved = [
        {**message, "content": _moved_text(message["content"], boxes)}  # one list for all images
        for message in messages
    ]
    return Sample(files, json.dumps(moved), counts)


def _moved_text(text: str, boxes: Sequence[Letterbox]) -> str:
    """A text about all images, with its coordinates moved."""
    texts = {box.text(text) for box in boxes}
    if len(texts) > 1:
        raise RecordError(
            "coordinates that bars would move", "the images get different bars; whose coordinates are it?"
        )
    return texts.pop()


def _store_depth(
    name: str | None,
    folder: Path,
    box: Letterbox,
    layout: SampleLayout,
    path: Path,
    counts: Counter[str],
) -> JsonObject | None:
    """Write the depth map of an image to `path`; returns what the record is to keep of it."""
    if name is None:
        counts["images without depth"] += 1
        width, height = box.target
        write_depth(np.zeros((height, width), np.uint16), path)
        return None
    depth = read_depth(folder / name)
    values = millimetres(depth, layout.depth_unit_mm)
    image = Image.fromarray(values)
    fitted = box.depth(image)
    if depth.bits == 16 and layout.depth_unit_mm == 1 and fitted is image:
        shutil.copyfile(folder / name, path)
    else:
        counts["depth maps encoded anew"] += 1
        write_depth(np.asarray(fitted), path)
    counts["depth maps"] += 1
    counts["depth maps of 8 bits"] += depth.bits == 8
    counts["depth pixels"] += values.size
    counts["valid depth pixels"] += int(((values > MIN_DEPTH_MM) & (values < MAX_DEPTH_MM)).sum())
    return {"file": name, "bits": depth.bits}
