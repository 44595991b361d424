"""What an import takes, and what it leaves out."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lerobot_gem.data.gem_jsonl.plan import ImportPlan
from lerobot_gem.data.gem_jsonl.records import GemRecord
from tests.data.conftest import GemFolder


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[ImportPlan]:
    with closing(ImportPlan(tmp_path / "plan.sqlite")) as plan:
        yield plan


def look(plan: ImportPlan, source: Path, **options) -> None:
    """Look at all records, as an import does by default."""
    defaults = {"num_images": None, "unique_ids": True, "outside_files": False, "samples_per_episode": 100}
    plan.look_at(source, **defaults | options)


def skipped(plan: ImportPlan) -> Counter[str]:
    return Counter(entry.reason for entry in plan.skipped())


def test_the_most_common_number_and_size_of_images_are_taken(folder: GemFolder, plan: ImportPlan) -> None:
    small, large = folder.image("a.jpg"), folder.image("b.jpg", size=(80, 60))
    for images in (small, large, [large], [small, large]):
        folder.add(images)
    look(plan, folder.write())
    assert plan.num_records == 4 and plan.num_images == 1 and plan.most_common_size == (80, 60)
    assert skipped(plan) == {"number of images": 1} and plan.num_taken == 3
    assert not plan.has_depth


def test_the_number_of_images_can_be_asked_for(folder: GemFolder, plan: ImportPlan) -> None:
    image = folder.image("a.jpg")
    for images in (image, image, [image, image]):
        folder.add(images)
    look(plan, folder.write(), num_images=2)
    assert plan.num_images == 2 and skipped(plan) == {"number of images": 2}


def test_clips_are_taken_only_as_a_number_of_frames(folder: GemFolder, plan: ImportPlan) -> None:
    folder.add(folder.image("a.jpg"))
    folder.add(video="none.mp4", question="<video>What?")
    look(plan, folder.write())
    assert [(entry.reason, entry.detail) for entry in plan.skipped()] == [
        ("video", "expected --num_images=<frames of a clip>, at least 2 (32 in the release)")
    ]


@pytest.mark.parametrize("allowed", [False, True])
def test_files_outside_the_folder_are_taken_only_if_asked_for(
    folder: GemFolder, plan: ImportPlan, allowed: bool
) -> None:
    outside = (folder.root / folder.image("../private.png")).resolve()
    (folder.root / "images").mkdir()
    (folder.root / "images/link.png").symlink_to(outside)
    (folder.root / "folder").symlink_to(outside.parent)
    for image in ("../private.png", str(outside), "link.png", "folder/private.png"):
        folder.add(image)
    (folder.root / "depth").mkdir()
    (folder.root / "depth/a.png").symlink_to(outside)
    folder.add(folder.image("a.jpg"))
    folder.add(folder.image("b.jpg"))
    folder.add("folder/none.png")
    look(plan, folder.write(), outside_files=allowed)
    assert skipped(plan) == {"missing image": 1} | ({} if allowed else {"file outside the source": 5})
    assert plan.num_taken == (6 if allowed else 1)


def test_records_that_are_a_link_out_of_the_folder(folder: GemFolder, plan: ImportPlan) -> None:
    folder.add(folder.image("a.jpg"))
    file = folder.write() / "gem.jsonl"
    file.rename(folder.root.parent / "private.jsonl")
    file.symlink_to(folder.root.parent / "private.jsonl")
    with pytest.raises(ValueError, match=r"gem.jsonl is a link to a file outside of .*--outside_files=true"):
        look(plan, folder.root)
    look(plan, file)  # the user named it
    assert plan.num_taken == 1


@pytest.mark.parametrize("unique", [True, False])
def test_repeated_ids(folder: GemFolder, plan: ImportPlan, unique: bool) -> None:
    image = folder.image("a.jpg")
    for identity in (1, "1", 1, None, None):
        folder.add(image, id=identity)
    folder.add("none.jpg", id=5)
    folder.add(image, id=5)
    look(plan, folder.write(), unique_ids=unique)
    assert skipped(plan) == {"missing image": 1, **({"duplicate id": 1} if unique else {})}
    assert [(entry.number, entry.id) for entry in plan.skipped() if entry.reason == "duplicate id"] == (
        [(3, 1)] if unique else []
    )


def test_files_may_count_from_zero_each_and_refused_records_hide_no_others(
    folder: GemFolder, plan: ImportPlan
) -> None:
    image = folder.image("a.jpg")
    folder.add([image, image], id=0)  # of another number of images than most
    folder.add(image, id=0)
    folder.write("train.jsonl")
    folder.write("val.jsonl")
    look(plan, folder.root)
    assert skipped(plan) == {"number of images": 2}


def test_one_image_may_be_written_in_several_ways(folder: GemFolder, plan: ImportPlan) -> None:
    folder.depth(folder.image("a.jpg"))
    for image in ("a.jpg", "./a.jpg"):
        folder.add(image)
    look(plan, folder.write())
    assert skipped(plan) == {} and plan.has_depth


def test_depth_that_fits_several_images_by_its_base_name_is_not_guessed(
    folder: GemFolder, plan: ImportPlan
) -> None:
    for image in ("a/1.jpg", "b/1.jpg", "c/1.jpg", "a/2.jpg"):
        folder.add(folder.image(image))
    folder.add("a/2.jpg")
    for name in ("depth/1.png", "depth/c/1.png", "depth/2.png"):
        folder.depth("", name=name)
    look(plan, folder.write())
    assert plan.has_depth
    assert [entry.number for entry in plan.skipped()] == [1, 2]
    assert skipped(plan) == {"depth of several images": 2}


def test_episodes_keep_sources_and_images_together(folder: GemFolder, plan: ImportPlan) -> None:
    images = [folder.image(f"{name}.jpg") for name in "abcdef"]
    for image in (*images, *images, "f.jpg"):
        folder.add(image, data_source="one" if image < "f" else "two")
    look(plan, folder.write(), samples_per_episode=3)
    episodes = plan.episodes(range(plan.num_episodes))
    assert [episode.source for episode in episodes] == ["one", "one", "one", "two"]
    shown = [[record.record.images[0] for record in episode.records] for episode in episodes]
    assert shown == [
        ["a.jpg", "a.jpg", "b.jpg", "b.jpg"],
        ["c.jpg", "c.jpg", "d.jpg", "d.jpg"],
        ["e.jpg", "e.jpg"],
        ["f.jpg"] * 3,
    ]
    assert plan.episodes(range(1, 3)) == episodes[1:3]


def test_a_small_source_has_two_episodes(folder: GemFolder, plan: ImportPlan) -> None:
    for name in "abc":
        folder.add(folder.image(f"{name}.jpg"))
    look(plan, folder.write())
    assert [len(episode.records) for episode in plan.episodes(range(9))] == [2, 1]


def test_looking_is_all_or_nothing(folder: GemFolder, plan: ImportPlan) -> None:
    folder.add(folder.image("a.jpg"))
    file = folder.write("llava.json") / "llava.json"
    text = file.read_text()
    file.write_text(text[:-1])
    with pytest.raises(ValueError, match="damaged"):
        look(plan, folder.root)
    assert not plan.is_complete
    file.write_text(text)
    look(plan, folder.root)
    assert plan.is_complete and plan.num_records == 1


def test_text_that_is_no_unicode_is_taken_where_no_model_reads_it(
    folder: GemFolder, plan: ImportPlan
) -> None:
    half = json.loads('"\\ud83d"')
    folder.add(folder.image("a.jpg"), data_source=half)
    folder.add(f"{half}.jpg")
    folder.add("a.jpg", question=f"<image>What is {half}?")
    look(plan, folder.write())
    assert skipped(plan) == {"missing image": 1, "text that can't be encoded": 1}
    [episode] = plan.episodes(range(1))
    assert episode.records[0].record == GemRecord.parse(folder.records[0])
