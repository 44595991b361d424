"""Public benchmarks of spatial questions, read from the folders in which they are published.

| name | annotations, the first that is there | images |
|---|---|---|
| `vsi_bench` (arXiv 2412.14171) | `test.jsonl`, `test-*.parquet` | a folder of frames `<dataset>/<scene_name>/`, else the video `<dataset>/<scene_name>.mp4` |
| `cv_bench` (arXiv 2406.16860) | `test_2d.parquet` and `test_3d.parquet`, `test.parquet`, `.jsonl` alike | in the parquet files; `img/<filename>` |
| `embspatial` (arXiv 2406.05756) | `embspatial_bench.json`, `test-*.parquet` | in the files, base64 in JSON |
| `robospatial_home` (arXiv 2411.16537) | `annotations.json` (their download_benchmark.py), `*.parquet` | in the parquet files; the path in `img` |

All of them may lie in a folder `data/` as well. Questions are put as published: VSI-Bench's with the words of its lmms-eval task,
CV-Bench's by its `prompt`, EmbSpatial-Bench's with its options in letters, RoboSpatial-Home's as they are.
"""

import base64
import hashlib
import io
import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from lerobot_gem.evaluation.vqa_video import video_frames
from lerobot_gem.storage.images import open_picture
from lerobot_gem.validation import require

BenchmarkForm = Literal["letter", "first_number", "yes_no", "polygon"]

_LETTER = "Answer with the option's letter from the given choices directly."
_NUMBERS = {"object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation"}
_IMAGE_FILES = (".jpg", ".jpeg", ".png")


@dataclass
class BenchmarkOptions:
    """The public benchmark that is asked instead of a dataset: `--benchmark.*`.

    Attributes:
        name: "vsi_bench", "cv_bench", "embspatial" or "robospatial_home".
        root: Folder of its files, as published.
        num_frames: Frames of a video that are shown, evenly spread from its first to its last, as images one after the other.
    """

    name: str
    root: Path
    num_frames: int = 32

    def __post_init__(self) -> None:
        require(self.name, tuple(BENCHMARKS), "benchmark.name")
        if self.num_frames < 1:
            raise ValueError(f"benchmark.num_frames={self.num_frames}: expected at least 1.")


@dataclass(frozen=True)
class BenchmarkRow:
    """A question of a benchmark.

    Attributes:
        name: Its id in the benchmark.
        kind: The benchmark's kind of question; scores are grouped by it.
        group: What published averages go by, where that is not the kind: the source of CV-Bench's images.
        question: As put to the model.
        options: How many there are to choose from; 0 where there are none.
        answer: The right one: a letter, a number, yes or no, or the corners of an area "[(x, y), ...]" from 0 to 1.
        form: How answers are read.
        images: What its images are of: equal for questions about the same ones.
        load: Reads them.
    """

    name: str
    kind: str
    group: str
    question: str
    options: int
    answer: str
    form: BenchmarkForm
    images: str
    load: Callable[[], list[Tensor]]


@dataclass(frozen=True)
class _Layout:
    """How a benchmark is published.

    Attributes:
        files: Patterns of annotation files; those of the first that matches are read.
        row: Makes a question of a record.
    """

    files: Sequence[Sequence[str]]
    row: Callable[[Mapping[str, Any], BenchmarkOptions], BenchmarkRow]


def read_benchmark(options: BenchmarkOptions) -> list[BenchmarkRow]:
    """All questions of a benchmark; those about the same images follow each other.

    Raises:
        FileNotFoundError: There are no annotations, or an image or video is missing.
        ValueError: A record lacks a field, or an answer is not of the benchmark's form.
    """
    layout = BENCHMARKS[options.name]
    rows = []
    for file, record in _records(options, layout.files):
        try:
            rows.append(layout.row(record, options))
        except KeyError as error:
            raise ValueError(
                f"A record of {file} has no {error}; it has {sorted(record)}: expected {options.name} as it is published "
                "(docs/how_to/score_answers.md). Check --benchmark.name."
            ) from error
    return sorted(rows, key=lambda row: row.images)


def _records(
    options: BenchmarkOptions, files: Sequence[Sequence[str]]
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for patterns in files:
        found = [
            file
            for folder in (options.root, options.root / "data")
            for pattern in patterns
            for file in sorted(folder.glob(pattern))
        ]
        for file in found:
            for record in _records_of(file):
                yield file, record
        if found:
            return
    names = " or ".join(" and ".join(patterns) for patterns in files)
    raise FileNotFoundError(
        f"benchmark.root={options.root} holds no {options.name}: expected {names}, there or in its folder data/. Download the "
        "dataset from the Hub."
    )


def _records_of(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".parquet":
        for batch in pq.ParquetFile(file).iter_batches(batch_size=64):
            yield from batch.to_pylist()
        return
    text = file.read_text()
    try:
        yield from json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.splitlines())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is no JSON ({error}): expected one array, or one object in each line."
        ) from error


def _vsi_bench(record: Mapping[str, Any], options: BenchmarkOptions) -> BenchmarkRow:
    kind, choices = record["question_type"], record["options"]
    is_number = kind in _NUMBERS
    lines = ["These are frames of a video.", record["question"]]
    if is_number:
        lines.append("Please answer the question using a single word or phrase.")
    else:
        lines += ["Options:", *choices, _LETTER]
    scene = f"{record['dataset']}/{record['scene_name']}"
    return BenchmarkRow(
        name=str(record["id"]),
        kind=kind,
        group=kind,
        question="\n".join(lines),
        options=0 if is_number else len(choices),
        answer=str(record["ground_truth"]),
        form="first_number" if is_number else "letter",
        images=scene,
        load=lambda: _scene_frames(options.root, scene, options.num_frames),
    )


def _cv_bench(record: Mapping[str, Any], options: BenchmarkOptions) -> BenchmarkRow:
    return BenchmarkRow(
        name=str(record["idx"]),
        kind=record["task"],
        group=record["source"],
        question=f"{record['prompt']}\n{_LETTER}",
        options=len(record["choices"]),
        answer=record["answer"].strip("() "),
        form="letter",
        images=record["filename"],
        load=_image(record.get("image"), options.root / "img" / record["filename"]),
    )


def _embspatial(record: Mapping[str, Any], options: BenchmarkOptions) -> BenchmarkRow:
    choices = record["answer_options"]
    lettered = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, choices, strict=False)]
    return BenchmarkRow(
        name=str(record["question_id"]),
        kind=record["relation"],
        group=record["data_source"],
        question="\n".join([record["question"], *lettered, _LETTER]),
        options=len(choices),
        answer=string.ascii_uppercase[int(record["answer"])],
        form="letter",
        images=str(record["question_id"]),
        load=_image(record["image"], None),
    )


def _robospatial_home(record: Mapping[str, Any], options: BenchmarkOptions) -> BenchmarkRow:
    answer = record["answer"].strip()
    is_yes_no = answer.lower() in ("yes", "no")
    image = record["img"]
    path = options.root / image if isinstance(image, str) else None
    # In parquet files nothing else tells one picture from another.
    identity = image if path else hashlib.sha256(image["bytes"]).hexdigest()[:16]
    return BenchmarkRow(
        name=f"{identity} {record['question'][:80]}",
        kind=record["category"],
        group=record["category"],
        question=record["question"],
        options=2 if is_yes_no else 0,
        answer=answer.lower() if is_yes_no else answer,
        form="yes_no" if is_yes_no else "polygon",
        images=identity,
        load=_image(None if path else image, path),
    )


def _image(stored: Any, path: Path | None) -> Callable[[], list[Tensor]]:
    """What reads an image: stored by the `datasets` library (bytes and path), in base64, or else the file at `path`."""

    def load() -> list[Tensor]:
        if isinstance(stored, str):
            data = base64.b64decode(stored)
        elif stored is not None and stored.get("bytes"):
            data = stored["bytes"]
        elif path is not None and path.is_file():
            data = path.read_bytes()
        else:
            raise FileNotFoundError(
                f"There is no image {path or stored}: expected it beside the annotations, as published."
            )
        return [as_tensor(open_picture(io.BytesIO(data)))]

    return load


def as_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).movedim(2, 0) / 255


def _scene_frames(root: Path, scene: str, count: int) -> list[Tensor]:
    """Frames of a scene, evenly spread: of its folder of pictures, in the order of their names, else of its video."""
    folder = root / scene
    if folder.is_dir():
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_FILES)
        if not files:
            raise FileNotFoundError(
                f"{folder} holds no pictures: expected frames, {', '.join(_IMAGE_FILES)}."
            )
        places = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
        return [as_tensor(open_picture(files[place])) for place in places]
    return [as_tensor(frame) for frame in video_frames(root / f"{scene}.mp4", count)]


BENCHMARKS: Mapping[str, _Layout] = {
    "vsi_bench": _Layout((("test.jsonl",), ("test-*.parquet",)), _vsi_bench),
    "cv_bench": _Layout(
        (("test_?d.parquet",), ("test.parquet", "test-*.parquet"), ("test_?d.jsonl",), ("test.jsonl",)),
        _cv_bench,
    ),
    "embspatial": _Layout((("embspatial_bench.json*",), ("test-*.parquet",)), _embspatial),
    "robospatial_home": _Layout((("annotations.json",), ("*.parquet",)), _robospatial_home),
}
