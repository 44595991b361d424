"""Parts of an import: datasets of a few episodes."""

import json
from pathlib import Path

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.gem_jsonl.parts import Part, PartOutcome, episodes_of_parts, write_part
from lerobot_gem.data.gem_jsonl.plan import Episode, PlannedRecord, Skipped
from lerobot_gem.data.gem_jsonl.records import GemRecord
from lerobot_gem.data.gem_jsonl.samples import SampleFormat
from lerobot_gem.processing.language import parse_messages
from tests.data.conftest import GemFolder

FORMAT = SampleFormat(num_images=1, size=(64, 48), depth=False, stretch=False, depth_unit_mm=1.0)


def episode(folder: GemFolder, source: str, *images: str) -> Episode:
    records = [GemRecord.parse(folder.add(image, id=image)) for image in images]
    return Episode(
        source, [PlannedRecord("gem.jsonl", number, record) for number, record in enumerate(records, 1)]
    )


@pytest.fixture
def part(folder: GemFolder) -> Part:
    """Episodes of one, two and no usable records."""
    for name in "abc":
        folder.image(f"{name}.jpg")
    return Part(
        3,
        [
            episode(folder, "one", "a.jpg"),
            episode(folder, "two", "b.jpg", "none.jpg", "c.jpg"),
            episode(folder, "three", "none.jpg"),
        ],
    )


def test_a_part_is_a_dataset_of_the_episodes_that_have_frames(
    folder: GemFolder, part: Part, tmp_path: Path
) -> None:
    root, outcome = write_part(folder.root, FORMAT, tmp_path / "parts", part)
    assert outcome.episodes == 2 and outcome.sources == {"one": 1, "two": 2}
    assert [(entry.id, entry.reason) for entry in outcome.skipped] == [("none.jpg", "broken image")] * 2
    dataset = LeRobotDataset("local/part", root=root)
    assert dataset.meta.episodes["length"] == [1, 2]
    asked = [parse_messages(dataset[index]["messages"])[0]["record"]["fields"]["id"] for index in range(3)]
    assert asked == ["a.jpg", "b.jpg", "c.jpg"]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-000003"]
    assert sorted(path.name for path in root.parent.iterdir()) == ["dataset", "outcome.json"]


def test_a_finished_part_is_kept(folder: GemFolder, part: Part, tmp_path: Path) -> None:
    first = write_part(folder.root, FORMAT, tmp_path, part)
    written = {path: path.stat().st_mtime_ns for path in first[0].rglob("*")}
    assert write_part(folder.root, FORMAT, tmp_path, part) == first
    assert written == {path: path.stat().st_mtime_ns for path in first[0].rglob("*")}


def test_without_any_frame_there_is_no_dataset(folder: GemFolder, tmp_path: Path) -> None:
    root, outcome = write_part(folder.root, FORMAT, tmp_path, Part(0, [episode(folder, "x", "none.jpg")]))
    assert outcome.episodes == 0 and len(outcome.skipped) == 1
    assert not root.exists() and (root.parent / "outcome.json").exists()


def test_an_outcome_is_kept_as_json(tmp_path: Path) -> None:
    outcome = PartOutcome(2, skipped=[Skipped("a.jsonl", 3, [1], "video", "why")])
    outcome.sources["one"] += 4
    outcome.counts["depth maps"] += 1
    outcome.save(tmp_path)
    assert PartOutcome.load(tmp_path) == outcome
    assert json.loads((tmp_path / "outcome.json").read_text())["sources"] == {"one": 4}


@pytest.mark.parametrize(
    ("samples_per_episode", "lengths"), [(100, [5, 5, 2]), (400, [1] * 12), (1000, [1] * 12)]
)
def test_a_part_has_about_500_records(samples_per_episode: int, lengths: list[int]) -> None:
    parts = episodes_of_parts(12, samples_per_episode)
    assert [len(part) for part in parts] == lengths
    assert [episode for part in parts for episode in part] == list(range(12))
