"""A record as a sample."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lerobot_gem.data.gem_jsonl.records import GemRecord, RecordError
from lerobot_gem.data.gem_jsonl.samples import Sample, SampleFormat, make_sample
from lerobot_gem.processing.language import conversations
from tests.data.conftest import GemFolder
from tests.data.gem_jsonl.test_clips import write_clip

IMAGE, IMAGE2 = "observation.images.image", "observation.images.image2"


def make(folder: GemFolder, record: dict, scratch: Path, **changes) -> Sample:
    settings = {"num_images": 1, "size": (64, 48), "depth": True, "stretch": False, "depth_unit_mm": 1.0}
    scratch.mkdir(exist_ok=True)
    return make_sample(
        GemRecord.parse(record), folder.root, SampleFormat(**(settings | changes)), scratch, "s"
    )


def test_files_of_the_right_size_are_kept(folder: GemFolder, tmp_path: Path) -> None:
    image = folder.image("k/a.jpg")
    depth = folder.depth(image)
    sample = make(folder, folder.add(image), tmp_path / "scratch")
    assert sample.files[IMAGE] == str(folder.root / image)
    stored = Path(sample.files[f"{IMAGE}_depth"])
    assert stored.read_bytes() == (folder.root / depth).read_bytes()
    assert stored.suffix == ".tiff", "LeRobot computes statistics of other suffixes from 8 bits"
    [question, _] = json.loads(sample.messages)
    assert question["camera"] == IMAGE and question["record"]["depth"] == [{"file": depth, "bits": 16}]
    pixels = {"depth pixels": 64 * 48, "valid depth pixels": 64 * 48 - 16}
    assert sample.counts == Counter({"depth maps": 1, **pixels})


def test_other_sizes_are_letterboxed_with_their_depth_and_coordinates(
    folder: GemFolder, tmp_path: Path
) -> None:
    image = folder.image("a.png", size=(48, 48))
    folder.depth(image, size=(48, 48), bits=8)
    record = folder.add(image, question='<image>What is at {"point_2d": [0, 500]}?')
    sample = make(folder, record, tmp_path / "scratch")
    with Image.open(sample.files[IMAGE]) as picture, Image.open(sample.files[f"{IMAGE}_depth"]) as depth:
        assert picture.size == depth.size == (64, 48) and (picture.format, depth.mode) == ("PNG", "I;16")
        assert np.asarray(picture)[:, :8].max() == np.asarray(depth)[:, 56:].max() == 0
        assert np.asarray(picture)[:, 8:56].max() > 200
        assert np.array_equal(np.asarray(depth)[10, 8:12] % 39, [0] * 4)
    assert json.loads(sample.messages)[0]["content"] == 'What is at {"point_2d": [125, 500]}?'
    assert sample.counts["images with bars"] == sample.counts["depth maps of 8 bits"] == 1
    assert sample.counts["valid depth pixels"] == 48 * 48 - 16 == sample.counts["depth pixels"] - 16


def test_missing_depth_is_zero(folder: GemFolder, tmp_path: Path) -> None:
    record = folder.add(folder.image("a.jpg"))
    sample = make(folder, record, tmp_path / "scratch")
    assert np.asarray(Image.open(sample.files[f"{IMAGE}_depth"])).max() == 0
    assert sample.counts == Counter({"images without depth": 1})
    assert json.loads(sample.messages)[0]["record"]["depth"] == [None]
    assert set(make(folder, record, tmp_path / "scratch", depth=False).files) == {IMAGE}


def test_several_images_are_cameras_that_are_shown_together(folder: GemFolder, tmp_path: Path) -> None:
    images = [folder.image("a.jpg"), folder.image("b.jpg", seed=1)]
    sample = make(folder, folder.add(images), tmp_path / "scratch", num_images=2, depth=False)
    assert sample.files == {
        IMAGE: str(folder.root / "a.jpg"),
        IMAGE2: str(folder.root / "b.jpg"),
    }
    [talk] = conversations(json.loads(sample.messages), [IMAGE, IMAGE2])
    assert talk.cameras == [0, 1] and talk.exchanges == [("What is in picture 0?", "Thing 0.")]


def test_coordinates_about_images_with_different_bars_are_refused(folder: GemFolder, tmp_path: Path) -> None:
    images = [folder.image("a.jpg"), folder.image("b.jpg", size=(48, 48))]
    record = folder.add(images, question='<image><image>What is at {"point_2d": [0, 500]}?')
    with pytest.raises(RecordError, match="whose coordinates"):
        make(folder, record, tmp_path / "scratch", num_images=2, depth=False)
    make(folder, record, tmp_path / "scratch", num_images=2, depth=False, stretch=True)


def test_a_clip_is_as_many_images_as_asked_for(folder: GemFolder, tmp_path: Path) -> None:
    write_clip(folder.root / "c.mp4", 11)
    record = folder.add(video="c.mp4", question="<video>\nWhat?")
    sample = make(folder, record, tmp_path / "scratch", num_images=2)
    first, last = (np.asarray(Image.open(sample.files[key])).mean() for key in (IMAGE, IMAGE2))
    assert first == pytest.approx(20, abs=3) and last == pytest.approx(120, abs=3)


def test_faulty_depth(folder: GemFolder, tmp_path: Path) -> None:
    record = folder.add(folder.image("a.jpg"))
    folder.depth("a.jpg", size=(48, 48))
    with pytest.raises(RecordError, match="depth of another size"):
        make(folder, record, tmp_path / "scratch")
