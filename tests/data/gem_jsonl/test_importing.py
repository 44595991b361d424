"""Importing whole folders: real datasets, interrupted and continued, by one process and by two."""

import errno
import json
import math
import os
import re
import shutil
import signal
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from pkgutil import resolve_name

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.gem_jsonl import importing
from lerobot_gem.data.gem_jsonl.importing import ImportGemConfig, import_gem
from lerobot_gem.processing.language import parse_messages
from lerobot_gem.storage.output_folder import OutputDataset
from tests.data.conftest import GemFolder
from tests.test_command_line import BIN, run
from tests.test_command_line_gem import train

IMAGE = "observation.images.image"


def settings(folder: GemFolder, root: Path, **changes) -> ImportGemConfig:
    return ImportGemConfig(
        **{"source": folder.root, "output": OutputDataset(root), "samples_per_episode": 4} | changes
    )


def load(root: Path) -> LeRobotDataset:
    return LeRobotDataset("local/gem", root=root)


def content(root: Path) -> list[dict]:
    """What the dataset holds, frame by frame, the bytes of its pictures included."""
    load(root)
    return [row for file in sorted(root.glob("data/*/*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def mixed(folder: GemFolder) -> GemFolder:
    """Twenty good records of two sources, two about each image, and one of each fault.

    Image 2 has no depth, image 3 depth of 8 bits.
    """
    for number in range(20):
        shown = number // 2
        image = folder.image(f"k{shown % 3}/{shown}.jpg", seed=shown)
        if shown != 2:
            folder.depth(image, bits=8 if shown == 3 else 16)
        folder.add(image, data_source="spar" if number < 8 else "vica")
    folder.add("none.jpg")
    broken = folder.root / folder.image("broken.jpg")
    broken.write_bytes(broken.read_bytes()[:-300])
    folder.add("broken.jpg")
    folder.add(folder.image("odd.jpg"))
    folder.depth("odd.jpg", size=(30, 40))
    folder.add("k0/0.jpg", question="Where?")
    folder.add("k0/0.jpg", conversations=[])
    folder.add("k0/0.jpg", id=3)
    folder.add(["k0/0.jpg", "k0/0.jpg"])
    folder.add(video="clip.mp4", question="<video>What?")
    folder.records.append("no record {")
    folder.write()
    return folder


FAULTS = {
    "missing image": 1,
    "broken image": 1,
    "depth of another size": 1,
    "<image> count": 1,
    "empty conversation": 1,
    "duplicate id": 1,
    "number of images": 1,
    "video": 1,
    "not JSON": 1,
}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_record_is_imported_or_counted(mixed: GemFolder, tmp_path: Path, num_workers: int) -> None:
    root = tmp_path / "set"
    report = import_gem(settings(mixed, root, num_workers=num_workers))
    assert report.skipped == FAULTS
    assert report.records == len(mixed.records) == report.imported + sum(FAULTS.values())
    assert report.sources == {"spar": 8, "vica": 12} and report.imported == 20
    assert Counter(json.loads(line)["reason"] for line in (root / "import_skipped.jsonl").open()) == FAULTS
    stored = json.loads((root / "import.json").read_text())
    assert stored["imported"] == 20 and stored["skipped"] == FAULTS
    assert any("skipped: broken image" in line for line in report.lines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gem", "set"]

    dataset = load(root)
    assert dataset.num_frames == 20 and dataset.num_episodes == report.episodes
    assert set(dataset.meta.tasks.index) == {"spar", "vica"}
    by_id = {
        parse_messages(item["messages"])[0]["record"]["fields"]["id"]: item
        for item in (dataset[index] for index in range(20))
    }
    assert sorted(by_id) == list(range(20))
    for number, item in by_id.items():
        record = mixed.records[number]
        [question, answer] = parse_messages(item["messages"])
        assert question["content"] == f"What is in picture {number}?" and question["camera"] == IMAGE
        assert answer["content"] == f"Thing {number}."
        assert item["task"] == record["data_source"]
        assert item[IMAGE].shape == (3, 48, 64)
        depth = item[f"{IMAGE}_depth"]
        assert depth.shape == (1, 48, 64) and depth[0, 0, 0] == 0
        assert depth.max() == {2: 0, 3: 250 * 39}.get(number // 2, 3500)
    info = dataset.meta.features[f"{IMAGE}_depth"]["info"]
    assert (info["depth_unit"], info["depth_kind"]) == ("mm", "mixed")
    stats = dataset.meta.stats[f"{IMAGE}_depth"]
    assert stats["max"].item() == 250 * 39 and stats["min"].item() == 0
    episodes = {int(item["episode_index"]): [] for item in by_id.values()}
    for number, item in by_id.items():
        episodes[int(item["episode_index"])].append(mixed.records[number]["image"])
    images = [set(images) for images in episodes.values()]
    assert sum(map(len, images)) == len(set.union(*images)), "an image is in one episode only"


def test_workers_and_tasks_do_not_change_the_dataset(
    mixed: GemFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lerobot_gem.data.gem_jsonl.parts._RECORDS", 4)
    roots = {}
    for name, change in {"one": {}, "two": {"num_workers": 2}, "three": {"tasks": 3}}.items():
        roots[name] = tmp_path / name / "set"
        import_gem(settings(mixed, roots[name], **change))
    files = {
        name: {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        for name, root in roots.items()
    }
    assert len([file for file in files["one"] if file.startswith("data/")]) > 3
    for name in ("two", "three"):
        assert content(roots["one"]) == content(roots[name])
        assert files["one"].keys() == files[name].keys()
        for file, path in files["one"].items():
            assert path.read_bytes() == files[name][file].read_bytes(), (name, file)


@pytest.fixture
def users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the `datasets` library keeps what it converts."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_parts_are_joined_into_one_dataset(
    mixed: GemFolder, tmp_path: Path, users_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether each episode is a part, or all are in one; some have a single frame."""
    for number in range(20, 23):
        mixed.add(mixed.image(f"{number}.jpg", seed=number), id=number + 80, data_source="small")
    mixed.write()
    roots = [tmp_path / str(records) for records in (1, 500)]
    for root in roots:
        monkeypatch.setattr("lerobot_gem.data.gem_jsonl.parts._RECORDS", int(root.name))
        report = import_gem(settings(mixed, root, samples_per_episode=2))
        assert not users_cache.exists() and users_cache == datasets.config.HF_DATASETS_CACHE
    parts, whole = map(load, roots)
    assert parts.meta.features == whole.meta.features and parts.meta.tasks.equals(whole.meta.tasks)
    assert list(parts.meta.tasks.index) == ["small", "spar", "vica"]
    assert parts.num_episodes == report.episodes and parts.num_frames == 23
    assert parts.meta.info.splits == whole.meta.info.splits == {"train": f"0:{report.episodes}"}
    for column in ("dataset_from_index", "dataset_to_index", "length", "tasks"):
        assert parts.meta.episodes[column] == whole.meta.episodes[column], column
    assert parts.meta.episodes["dataset_from_index"][1:] == parts.meta.episodes["dataset_to_index"][:-1]
    assert {1, 2} <= set(parts.meta.episodes["length"])
    assert content(roots[0]) == content(roots[1])
    for index in range(23):
        item, again = parts[index], whole[index]
        assert item["index"] == index and item.keys() == again.keys()
        for key in item:
            assert np.array_equal(item[key], again[key]), (index, key)
    for key in (IMAGE, f"{IMAGE}_depth"):
        for name, value in whole.meta.stats[key].items():
            np.testing.assert_allclose(parts.meta.stats[key][name], value, err_msg=f"{key} {name}")


def test_images_of_other_sizes_are_fitted(folder: GemFolder, tmp_path: Path) -> None:
    for size in ((64, 48), (32, 24), (48, 48)):
        folder.depth(folder.image(f"{size}.png", size=size), size=size)
        folder.add(f"{size}.png", question='<image>What is at {"point_2d": [0, 0]}?')
    folder.write()
    import_gem(settings(folder, tmp_path / "set", image_size=(48, 64)))
    dataset = load(tmp_path / "set")
    points = {}
    for index in range(3):
        item = dataset[index]
        assert item[IMAGE].shape == (3, 48, 64) and item[f"{IMAGE}_depth"].shape == (1, 48, 64)
        [question, _] = parse_messages(item["messages"])
        points[question["record"]["fields"]["image"]] = question["content"]
    assert points["(48, 48).png"] == 'What is at {"point_2d": [125, 0]}?'
    assert points["(64, 48).png"] == points["(32, 24).png"] == 'What is at {"point_2d": [0, 0]}?'


def test_llava_json_without_depth(folder: GemFolder, tmp_path: Path) -> None:
    folder.image("coco/1.jpg")
    folder.add("coco/1.jpg", question="What is this?\n<image>")
    folder.add("coco/1.jpg")
    del folder.records[1]["image"]
    folder.write("llava.json")
    report = import_gem(settings(folder, tmp_path / "set", source=folder.root / "llava.json"))
    assert report.imported == 1 and report.skipped == {"no image": 1} and report.sources == {"llava": 1}
    dataset = load(tmp_path / "set")
    assert list(dataset.meta.camera_keys) == [IMAGE]


def _import(config: ImportGemConfig) -> None:
    os.setsid()
    import_gem(config)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_import_goes_on(
    mixed: GemFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    expected, root = tmp_path / "whole", tmp_path / "set"
    import_gem(settings(mixed, expected, samples_per_episode=1))
    monkeypatch.setattr("lerobot_gem.data.gem_jsonl.parts._RECORDS", 1)
    config = settings(mixed, root, samples_per_episode=1, num_workers=num_workers)
    process = get_context("fork").Process(target=_import, args=(config,))
    process.start()
    folders = root.with_name("set.importing") / "parts"
    deadline = time.monotonic() + 120
    while not list(folders.glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    done = len(list(folders.glob("part-*")))
    assert 0 < done < 14 and not root.exists()

    with pytest.raises(FileExistsError, match="--resume=true"):
        import_gem(settings(mixed, root, samples_per_episode=1))
    with pytest.raises(ValueError, match="other settings or records"):
        import_gem(settings(mixed, root, samples_per_episode=2, resume=True))
    kept = {path: path.stat().st_mtime_ns for path in folders.glob("part-*/outcome.json")}
    time.sleep(1.5 if num_workers > 1 else 0)  # workers see within a second that they are alone
    report = import_gem(settings(mixed, root, samples_per_episode=1, resume=True))
    assert report.imported == 20 and kept
    assert content(root) == content(expected)
    assert not root.with_name("set.importing").exists()


def test_nothing_is_overwritten_without_being_told(folder: GemFolder, tmp_path: Path) -> None:
    folder.add(folder.image("a.jpg"))
    folder.write()
    root = tmp_path / "set"
    import_gem(settings(folder, root))
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="--overwrite=true"):
            import_gem(settings(folder, root, resume=resume))
    folder.add("a.jpg")
    folder.write()
    assert import_gem(settings(folder, root, overwrite=True)).imported == 2
    with pytest.raises(FileExistsError, match="did not write it"):
        import_gem(settings(folder, folder.root, overwrite=True))
    with pytest.raises(ValueError, match="contradict"):
        settings(folder, root, overwrite=True, resume=True)


@pytest.mark.parametrize(
    "target",
    [
        "lerobot_gem.data.gem_jsonl.parts._save_episode",
        "lerobot.datasets.aggregate.append_or_create_parquet_file",
    ],
)
def test_a_full_disk_leaves_nothing_that_loads(
    mixed: GemFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Before the second episode is written, or while the first part is joined."""
    root = tmp_path / "set"
    original, calls = resolve_name(target), iter(range(2))

    def full(*args: object, **options: object) -> object:
        if next(calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(OSError, match=r"No space left on the disk .*--resume=true"):
            import_gem(settings(mixed, root))
    staging = root.with_name("set.importing")
    assert not root.exists() and not (staging / "dataset").exists()
    assert not list((staging / "parts").glob(".*"))
    assert import_gem(settings(mixed, root, resume=True)).imported == 20


def test_a_part_that_is_missing_at_the_end_is_named(
    mixed: GemFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody removes one: its task is noted as complete."""
    monkeypatch.setattr("lerobot_gem.data.gem_jsonl.parts._RECORDS", 4)
    root, staging = tmp_path / "set", tmp_path / "set.importing"

    def fails(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_join", fails)
        with pytest.raises(OSError, match="no room"):
            import_gem(settings(mixed, root))
    shutil.rmtree(staging / "parts" / "part-000001")
    with pytest.raises(FileNotFoundError, match=r"lacks part-000001: expected all \d+ parts") as error:
        import_gem(settings(mixed, root, resume=True))
    assert f"Remove {staging / 'tasks'}" in str(error.value) and not root.exists()
    shutil.rmtree(staging / "tasks")
    assert import_gem(settings(mixed, root, resume=True)).imported == 20


def test_no_usable_record_is_an_error_that_leaves_the_list_of_them(folder: GemFolder, tmp_path: Path) -> None:
    folder.add("none.jpg")
    broken = folder.root / folder.image("broken.jpg")
    broken.write_bytes(broken.read_bytes()[:-300])
    folder.add("broken.jpg")
    folder.write()
    listed = tmp_path / "set.skipped.jsonl"
    with pytest.raises(ValueError, match="No record of .* can be used, of 2: ") as error:
        import_gem(settings(folder, tmp_path / "set"))
    for part in (
        "1 broken image (such as record 2 of gem.jsonl: ",
        "1 missing image (",
        "none.jpg",
        str(listed),
    ):
        assert part in str(error.value)
    reasons = [json.loads(line)["reason"] for line in listed.open()]
    assert sorted(reasons) == ["broken image", "missing image"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gem", "set.skipped.jsonl"]

    folder.records = ["", ""]
    folder.write()
    with pytest.raises(ValueError, match="of 0: none was found"):
        import_gem(settings(folder, tmp_path / "set"))
    assert listed.read_text() == ""

    folder.image("none.jpg")
    folder.records = []
    folder.add("none.jpg")
    folder.write()
    import_gem(settings(folder, tmp_path / "set"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gem", "set"]


def test_layouts_of_other_trainers(folder: GemFolder, tmp_path: Path) -> None:
    """Images in a folder beside the file, other names, a system turn: all in one import, and what is odd is counted."""
    folder.image("images/1.jpg")
    talk = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cup."}]
    folder.records = [
        {"id": 1, "images": ["1.jpg"], "messages": [{"role": "system", "content": "Be brief."}, *talk]},
        {"id": 2, "image": "images/1.jpg", "conversations": talk},
        {"id": 3, "image": "1.jpg", "messages": [talk[0], {"role": "assistant", "content": "Half \ud83d"}]},
        {"id": 4, "images": ["1.jpg"], "instruction": "What?", "output": "A cup."},
    ]
    folder.write()
    report = import_gem(settings(folder, tmp_path / "set"))
    assert report.imported == 2 and report.counts["system turns left out"] == 1
    assert report.skipped == {"text that can't be encoded": 1, "empty conversation": 1}
    assert any("such as record 3 of gem.jsonl: '\\ud83d'" in line for line in report.lines())
    for item in map(load(tmp_path / "set").__getitem__, range(2)):
        assert [message["content"] for message in parse_messages(item["messages"])] == ["What?", "A cup."]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("resize", "crop", "='crop' is unknown: expected one of 'letterbox', 'stretch'"),
        ("num_images", 0, "=0: expected at least 1"),
        ("num_workers", 0, "=0: expected at least 1"),
        ("samples_per_episode", 1001, "=1001: expected at most 1000"),
        ("image_size", (8, 8), r"=\(8, 8\): expected height and width of at least 16"),
        ("depth_unit_mm", 0.0, "=0.0: expected millimetres above 0"),
        ("depth_unit_mm", math.nan, "=nan: expected millimetres above 0"),
        ("depth_unit_mm", math.inf, "=inf: expected millimetres above 0"),
    ],
)
def test_settings_are_checked(folder: GemFolder, field: str, value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}{expected}"):
        settings(folder, folder.root, **{field: value})


def test_a_unit_that_is_probably_wrong_is_pointed_out(folder: GemFolder, tmp_path: Path) -> None:
    folder.depth(folder.image("a.jpg"))
    folder.add("a.jpg")
    folder.write()
    lines = list(import_gem(settings(folder, tmp_path / "set", depth_unit_mm=10.0)).lines())
    assert any("is --depth_unit_mm right?" in line for line in lines)


@pytest.mark.slow
def test_the_command_imports_what_lerobot_trains_on(mixed: GemFolder, tmp_path: Path) -> None:
    """Two steps of joint training on depth and language; images of the tiny preset's own size."""
    root = tmp_path / "set"
    log = run(
        BIN / "python",
        "-m",
        "lerobot_gem.scripts.import_gem",
        f"--source={mixed.root}",
        f"--output.root={root}",
        "--image_size=[64, 64]",
        "--num_workers=2",
    )
    assert re.search(r"20 of 29 records imported, in \d episodes, images 64 x 64", log)
    assert "1  skipped: broken image" in log
    log, checkpoint = train(
        "gem_tiny_stage1",
        root,
        tmp_path / "run",
        "--policy.allow_untrained=true",
        "--policy.stage=joint",
    )
    steps = re.findall(r"step:\d .*frames_with_language:([\d.]+).*frames_with_depth:([\d.]+)", log)
    assert len(steps) == 2 and all(float(language) == 1 and float(depth) > 0 for language, depth in steps), (
        log
    )
    assert np.isfinite([float(loss) for loss in re.findall(r"language_loss:([\d.]+)", log)]).all()
    assert (checkpoint / "model.safetensors").exists()
