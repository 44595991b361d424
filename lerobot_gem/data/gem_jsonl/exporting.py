"""A LeRobotDataset v3.0 with questions as a folder in the GEM-250K format.

What `lerobot-gem-import` wrote becomes the records that it came from, with the images and depth maps that the dataset
holds: images that were fitted into another size stay so, with the coordinates that fit them. Other datasets become one
record for each conversation of a frame, with the images that it is about, the task, the action and the state.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_STATE
from PIL import Image

from lerobot_gem.data.gem_jsonl.images import RELATIVE_STEP_MM
from lerobot_gem.data.gem_jsonl.records import DEPTH_FOLDER, RECORD, JsonObject, record_of
from lerobot_gem.processing.depth_cameras import METRES, pair_depth
from lerobot_gem.processing.language import (
    EVENTS,
    MESSAGES,
    PERSISTENT,
    Message,
    check_cameras_of,
    conversations,
    messages_of_rows,
    parse_messages,
)
from lerobot_gem.storage.images import encode_depth_png, open_picture
from lerobot_gem.storage.opening import DatasetOptions, open_dataset, open_metadata
from lerobot_gem.storage.output_folder import check_output, explained_full_disk, published

ANNOTATIONS = "gem.jsonl"

# Folder of images that the dataset has no path for; their names hold the frame's index, and are found nowhere else.
_IMAGES = "images"
_PNG = b"\x89PNG"

Row = dict[str, Any]


@dataclass
class ExportGemConfig:
    """What to export, and where to.

    Attributes:
        dataset: The dataset, with images (not videos), and the column `messages` or language columns.
        output_dir: Folder to write; must not exist unless `overwrite` says so.
        overwrite: Replace what an earlier export wrote to `output_dir`.
    """

    dataset: DatasetOptions
    output_dir: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.output_dir = Path(self.output_dir)


@dataclass
class ExportReport:
    """What an export wrote.

    Attributes:
        frames: Number of the dataset's frames.
        records: Number of lines in `gem.jsonl`.
        silent_frames: Number of frames without any question.
        images: Number of image files.
        depth_maps: Number of depth files.
    """

    frames: int = 0
    records: int = 0
    silent_frames: int = 0
    images: int = 0
    depth_maps: int = 0


def export_gem(config: ExportGemConfig) -> ExportReport:
    """Export.

    Raises:
        FileNotFoundError: There is no dataset at `dataset.root`.
        FileExistsError: Something is at `output_dir`, and `overwrite` is not set or it is no export.
        ValueError: The dataset is of an older format, stores videos, or no questions, or questions about unknown cameras.
        OSError: The disk is full, or can't be read.
    """
    check_output(config.output_dir, config.overwrite, ANNOTATIONS)
    _check_content(open_metadata(config.dataset))
    dataset = open_dataset(config.dataset)
    with (
        explained_full_disk(config.output_dir, "Free some and export again."),
        published(config.output_dir, overwrite=config.overwrite) as writing,
    ):
        writing.mkdir(parents=True)
        report = ExportReport()
        frames = _Frames(dataset.meta, writing, report)
        with (writing / ANNOTATIONS).open("w") as stream:
            for row in _rows(dataset):
                records = list(frames.records(row))
                report.frames += 1
                report.silent_frames += not records
                report.records += len(records)
                stream.writelines(json.dumps(record) + "\n" for record in records)
    return report


def _check_content(meta: LeRobotDatasetMetadata) -> None:
    """Check that a dataset has images and questions.

    Raises:
        ValueError: It has not.
    """
    if meta.video_keys:
        raise ValueError(
            f"{meta.root} stores {meta.video_keys} as videos: expected images, which such records consist of. Record it with "
            "--dataset.video=false."
        )
    if MESSAGES not in meta.features and not meta.has_language_columns:
        raise ValueError(
            f"{meta.root} holds no questions: expected the column {MESSAGES!r} (docs/how_to/import_data.md) or LeRobot's language columns."
        )


def _rows(dataset: LeRobotDataset) -> Iterator[Row]:
    """The frames as they are stored, with the bytes of their image files."""
    rows = dataset.hf_dataset.with_format(None)
    for key in dataset.meta.image_keys:
        rows = rows.cast_column(key, datasets.Image(decode=False))
    yield from rows


class _Frames:
    """Writes the images of frames, and says what the records about them are.

    Args:
        meta: The dataset's metadata.
        folder: Where images and depth maps go.
        report: Where they are counted.
    """

    def __init__(self, meta: LeRobotDatasetMetadata, folder: Path, report: ExportReport) -> None:
        self._meta = meta
        self._folder = folder
        self._report = report
        self._cameras = [key for key in meta.image_keys if key not in meta.depth_keys]
        self._depth = pair_depth(meta.features, None)

    def records(self, row: Row) -> Iterator[JsonObject]:
        """The records about a frame."""
        messages = self._messages(row)
        if messages and RECORD in messages[0]:
            camera = messages[0].get("camera")
            yield self._record(row, messages, [camera] if camera else self._cameras)
            return
        for talk in conversations(messages, self._cameras):
            exchanges = [
                {"role": role, "content": text}
                for exchange in talk.exchanges
                for role, text in zip(("user", "assistant"), exchange, strict=True)
            ]
            if exchanges:
                yield self._record(row, exchanges, [self._cameras[place] for place in talk.cameras])

    def _messages(self, row: Row) -> list[Message]:
        if MESSAGES in row:
            messages = parse_messages(row[MESSAGES])
            check_cameras_of(messages, self._cameras, f"the column {MESSAGES!r}, frame {row['index']}")
            return messages
        task = self._meta.tasks.index[row["task_index"]]
        persistent, events = (row.get(column) or [] for column in (PERSISTENT, EVENTS))
        return messages_of_rows(persistent, events, row["timestamp"], task, row["index"])

    def _record(self, row: Row, messages: Sequence[Message], cameras: Sequence[str]) -> JsonObject:
        kept = messages[0].get(RECORD, {})
        images = kept.get("fields", {}).get("image") or []
        originals = [images] if isinstance(images, str) else images
        depths = kept.get("depth") or []
        names = []
        for place, camera in enumerate(cameras):
            data = row[camera]["bytes"]
            original = originals[place] if originals else None
            inside = original if original and _is_inside(PurePosixPath(original)) else None
            name = inside or _made_name(row["index"], original or _short(camera))
            names.append(self._write_image(_with_suffix(name, data), data))
            # An imported record knows where its depth map was, or that it had none.
            depth = depths[place] if depths else {}
            if camera in self._depth and depth is not None:
                kept_file = depth.get("file") if names[-1] == original else None
                file = _depth_path(names[-1], kept_file, is_made=inside is None)
                self._write_depth(row, self._depth[camera], file, bits=depth.get("bits", 16))
        record = record_of(messages, names)
        return record if kept else self._context(row) | record

    def _context(self, row: Row) -> JsonObject:
        """What the dataset knows of a frame beside images and messages: an import makes `data_source` the task again."""
        vectors = {key: row[key] for key in (OBS_STATE, ACTION) if key in row}
        return {"data_source": self._meta.tasks.index[row["task_index"]], **vectors}

    def _write_image(self, name: str, data: bytes) -> str:
        """Write an image, unless another record has; returns its path."""
        self._report.images += self._write(name, data, "images")
        return name

    def _write_depth(self, row: Row, key: str, file: PurePosixPath, bits: int) -> None:
        data, unit = row[key]["bytes"], self._meta.features[key]["info"]["depth_unit"]
        if unit != "mm" or bits != 16 or not data.startswith(_PNG):
            with open_picture(io.BytesIO(data)) as image:
                steps = np.asarray(image) * (1000 * METRES[unit])
            if bits == 8:
                steps = steps / RELATIVE_STEP_MM
            dtype = np.uint8 if bits == 8 else np.uint16
            steps = np.nan_to_num(steps, posinf=0).round()
            data = encode_depth_png(np.where(steps > np.iinfo(dtype).max, 0, steps).astype(dtype))
        self._report.depth_maps += self._write(str(file), data, "depth maps")

    def _write(self, name: str, data: bytes, what: str) -> bool:
        """Write a file; returns whether no other record has."""
        path = self._folder / name
        if path.exists():
            if path.read_bytes() != data:
                raise ValueError(f"Two different {what} are named {name!r}: rename one in the records.")
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return True


def _depth_path(image: str, kept: str | None, *, is_made: bool) -> PurePosixPath:
    """Where the depth map of an image goes: where it was, or else where the import looks for it (`depth_file`).

    Args:
        image: Path of the image.
        kept: Where the depth map was, if the image has kept its path.
        is_made: Whether the image's name is the export's own (`_made_name`).
    """
    if kept is not None and _is_inside(PurePosixPath(kept)):
        return PurePosixPath(kept)
    path = PurePosixPath(image).with_suffix(".png")
    # The release knows base names alone, which must then be those of one image.
    return PurePosixPath(DEPTH_FOLDER, path.name if is_made else path)


def _is_inside(path: PurePosixPath) -> bool:
    """Whether a path written in a dataset stays in the folder that it starts from."""
    return not path.is_absolute() and ".." not in path.parts


def _short(camera: str) -> str:
    return camera.rpartition(".")[2]


def _made_name(index: int, name: str) -> str:
    """A path for an image that has none, or one that leads out of the folder."""
    return f"{_IMAGES}/{index:08d}-{PurePosixPath(name).name}"


def _with_suffix(name: str, data: bytes) -> str:
    """A path with a suffix that says the format."""
    path = PurePosixPath(name)
    with Image.open(io.BytesIO(data)) as image:
        name_of_format = "JPEG" if image.format in ("JPEG", "MPO") else image.format or "PNG"
    if Image.registered_extensions().get(path.suffix.lower()) != name_of_format:
        path = path.with_name(path.name + {"JPEG": ".jpg"}.get(name_of_format, f".{name_of_format.lower()}"))
    return str(path)
