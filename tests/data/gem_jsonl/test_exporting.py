"""Exporting: back to what was imported, and from other datasets."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

from lerobot_gem.data.gem_jsonl.exporting import ExportGemConfig, ExportReport, export_gem
from lerobot_gem.data.gem_jsonl.importing import ImportGemConfig, import_gem
from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.storage.output_folder import OutputDataset
from tests.conftest import write_dataset
from tests.data.conftest import GemFolder
from tests.data.gem_jsonl.test_clips import write_clip


def records(folder: Path) -> dict[object, dict]:
    lines = (folder / "gem.jsonl").read_text().splitlines()
    return {record.get("id"): record for record in map(json.loads, lines)}


def export(root: Path, output_dir: Path, **options) -> ExportReport:
    return export_gem(ExportGemConfig(DatasetOptions("local/set", root), output_dir, **options))


def round_trip(folder: GemFolder, tmp_path: Path, **changes) -> Path:
    folder.write()
    import_gem(ImportGemConfig(folder.root, OutputDataset(tmp_path / "set"), **changes))
    export(tmp_path / "set", tmp_path / "out")
    return tmp_path / "out"


def test_a_round_trip_gives_the_same_records_images_and_depth(folder: GemFolder, tmp_path: Path) -> None:
    for number, suffix in enumerate(("jpg", "png", "webp", "jpg")):
        image = folder.image(f"k/{number}.{suffix}", seed=number)
        if number < 3:
            folder.depth(image, bits=8 if number == 1 else 16)
        folder.add(
            image, question="Which?\n<image>" if number == 2 else None, data_source="spar", extra=[1, {}]
        )
    folder.add(["k/0.jpg"], id="again")
    folder.records[0]["conversations"] += [
        {"from": "human", "value": 'Is it {"point_2d": [5, 7]}?'},
        {"from": "gpt", "value": "Yes."},
    ]
    out = round_trip(folder, tmp_path)
    assert records(out) == {record["id"]: record for record in folder.records}
    images = sorted(path.relative_to(out) for path in out.glob("k/*"))
    assert len(images) == 4
    for image in images:
        assert (out / image).read_bytes() == (folder.root / image).read_bytes()
    depths = sorted(path.relative_to(out) for path in out.glob("depth/*"))
    assert [path.name for path in depths] == ["0.png", "1.png", "2.png"]
    for depth in depths:
        with Image.open(out / depth) as ours, Image.open(folder.root / depth) as theirs:
            assert ours.mode == theirs.mode
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_fitted_images_come_with_the_coordinates_that_fit_them(folder: GemFolder, tmp_path: Path) -> None:
    """What is exported is imported again without a further change."""
    folder.depth(folder.image("a.png", size=(48, 48)), size=(48, 48))
    folder.add("a.png", question='<image>\nWhat is at {"bbox_2d": [0, 0, 500, 1000]}?')
    folder.add(folder.image("b.jpg", mode="L"))
    out = round_trip(folder, tmp_path, image_size=(48, 64))
    record = records(out)[0]
    assert record["conversations"][0]["value"] == '<image>\nWhat is at {"bbox_2d": [125, 0, 500, 1000]}?'
    with Image.open(out / "a.png") as image, Image.open(out / "depth" / "a.png") as depth:
        assert image.size == depth.size == (64, 48)
    import_gem(ImportGemConfig(out, OutputDataset(tmp_path / "set2")))
    export(tmp_path / "set2", tmp_path / "out2")
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "out2") for path in (tmp_path / "out2").rglob("*") if path.is_file()
    )
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / "out2" / file).read_bytes(), file


def test_paths_that_lead_elsewhere_are_exported_inside(folder: GemFolder, tmp_path: Path) -> None:
    folder.image("../elsewhere/a.jpg")
    folder.add("../elsewhere/a.jpg")
    folder.add(str((folder.root / "../elsewhere/a.jpg").resolve()))
    out = round_trip(folder, tmp_path, outside_files=True)
    assert {record["image"] for record in records(out).values()} == {
        "images/00000000-a.jpg",
        "images/00000001-a.jpg",
    }
    assert len(list(out.glob("images/*"))) == 2


def test_depth_is_found_again_beside_images_that_got_other_names(folder: GemFolder, tmp_path: Path) -> None:
    """One image is outside of the folder, the other in a format that fitting changes."""
    elsewhere = folder.image("../elsewhere/7.jpg")
    folder.depth(elsewhere)
    folder.add(str((folder.root / elsewhere).resolve()))
    folder.depth(folder.image("kitchen/8.webp"), bits=8)
    folder.add("kitchen/8.webp")
    out = round_trip(folder, tmp_path, image_size=(30, 40), outside_files=True)
    report = import_gem(ImportGemConfig(out, OutputDataset(tmp_path / "again")))
    assert report.counts["depth maps"] == 2
    first, again = (LeRobotDataset("local/x", root=tmp_path / name) for name in ("set", "again"))
    for index in range(2):
        key = "observation.images.image_depth"
        assert (first[index][key] == again[index][key]).all()


def test_depth_of_images_that_share_a_base_name_is_kept_apart(folder: GemFolder, tmp_path: Path) -> None:
    """The records' own folder is called as the export's, and fitting changes the format of both."""
    rooms = {"kitchen": 1000, "hall": 2000}
    for seed, (room, millimetres) in enumerate(rooms.items()):
        folder.add(folder.image(f"images/{room}/7.webp", seed=seed))
        path = folder.root / f"depth/images/{room}/7.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((48, 64), millimetres, np.uint16)).save(path)
    folder.write()
    import_gem(ImportGemConfig(folder.root, OutputDataset(tmp_path / "set"), image_size=(30, 40)))
    report = export(tmp_path / "set", tmp_path / "out")
    assert (report.images, report.depth_maps) == (2, 2)
    for room, millimetres in rooms.items():
        [depth] = (tmp_path / "out" / "depth" / "images" / room).iterdir()
        with Image.open(depth) as image:
            assert set(np.unique(np.asarray(image))) == {millimetres}
    again = import_gem(ImportGemConfig(tmp_path / "out", OutputDataset(tmp_path / "again")))
    assert again.counts["depth maps"] == 2


def test_two_depth_maps_of_one_name_are_an_error(tmp_path: Path) -> None:
    """A dataset that somebody joined: the records are of two folders, with another depth map under the same path."""

    def question(image: str) -> str:
        kept = {
            "fields": {"image": image},
            "before": "",
            "after": "",
            "depth": [{"file": "depth/7.png", "bits": 16}],
        }
        key = "observation.images.image"
        first = {"role": "user", "content": "What?", "camera": key, "record": kept}
        return json.dumps([first, {"role": "assistant", "content": "That."}])

    size, names = (16, 16), ["height", "width", "channels"]
    key = "observation.images.image"
    dataset = LeRobotDataset.create(
        "local/set",
        fps=1,
        root=tmp_path / "set",
        use_videos=False,
        features={
            key: {"dtype": "image", "shape": (*size, 3), "names": names},
            f"{key}_depth": {
                "dtype": "image",
                "shape": (*size, 1),
                "names": names,
                "info": {"is_depth_map": True, "depth_unit": "mm"},
            },
            "messages": {"dtype": "string", "shape": (1,), "names": None},
        },
    )
    for number, millimetres in enumerate((1000, 2000)):
        dataset.add_frame(
            {
                key: np.full((*size, 3), number, np.uint8),
                f"{key}_depth": np.full((*size, 1), millimetres, np.uint16),
                "messages": question(f"{number}.png"),
                "task": "look",
            }
        )
    dataset.save_episode()
    dataset.finalize()
    with pytest.raises(ValueError, match="Two different depth maps are named 'depth/7.png': rename one"):
        export(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_clip_is_exported_as_its_frames(folder: GemFolder, tmp_path: Path) -> None:
    write_clip(folder.root / "c.mp4", 5)
    folder.add(video="c.mp4", question="<video>\nWhat?")
    [record] = records(round_trip(folder, tmp_path, num_images=2)).values()
    assert record["image"] == ["images/00000000-image.jpg", "images/00000000-image2.jpg"]
    assert "video" not in record and record["conversations"][0]["value"] == "<image>\n<image>\nWhat?"
    assert all((tmp_path / "out" / name).exists() for name in record["image"])


def test_any_dataset_with_questions(depth_dataset_root: Path, tmp_path: Path) -> None:
    """Frame 0 has a question about each camera, frame 3 about the second, the other 28 none."""
    report = export(depth_dataset_root, tmp_path / "out")
    assert (report.frames, report.silent_frames, report.records) == (30, 28, 3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "gem.jsonl").open()]
    assert [record["image"] for record in lines] == [
        "images/00000000-image.png",
        "images/00000000-image2.png",
        "images/00000003-image2.png",
    ]
    assert lines[0]["conversations"][0]["value"] == "<image>\nWhere is it in observation.images.image?"
    assert report.images == report.depth_maps == 3
    frame = LeRobotDataset("local/set", root=depth_dataset_root)[3]
    assert lines[2]["data_source"] == frame["task"]
    for key in ("action", "observation.state"):
        np.testing.assert_array_equal(np.float32(lines[2][key]), frame[key].numpy())
    with Image.open(tmp_path / "out" / "depth" / "00000003-image2.png") as depth:
        values = np.asarray(depth)
    assert depth.mode == "I;16" and values[values > 0].min() >= 300 and values.max() <= 4500


def test_some_episodes_of_a_dataset(depth_dataset_root: Path, tmp_path: Path) -> None:
    options = DatasetOptions("local/set", depth_dataset_root, episodes=[1])
    report = export_gem(ExportGemConfig(options, tmp_path / "out"))
    assert (report.frames, report.records) == (10, 0)


def test_unknown_cameras_and_missing_questions_are_errors(dataset_root: Path, tmp_path: Path) -> None:
    messages = json.dumps(
        [{"role": "user", "content": "?", "camera": "wrist"}, {"role": "assistant", "content": "!"}]
    )
    root = write_dataset(tmp_path / "set", size=16, messages=messages)
    with pytest.raises(
        ValueError, match=r"Unknown camera\(s\) \['wrist'\] in the column 'messages', frame 0"
    ):
        export(root, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no questions"):
        export(dataset_root, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="No dataset in"):
        export(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("out.*"))


def test_an_older_format_names_lerobots_converter(dataset_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(dataset_root, tmp_path / "old")
    info = json.loads((root / "meta" / "info.json").read_text())
    (root / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(ValueError, match=r"python -m lerobot\.scripts\.convert_dataset_v21_to_v30"):
        export(root, tmp_path / "out")


def test_an_export_replaces_only_exports(folder: GemFolder, tmp_path: Path) -> None:
    folder.add(folder.image("a.jpg"))
    out = round_trip(folder, tmp_path)
    with pytest.raises(FileExistsError, match="--overwrite=true"):
        export(tmp_path / "set", out)
    assert export(tmp_path / "set", out, overwrite=True).records == 1
    with pytest.raises(FileExistsError, match="did not write it"):
        export(tmp_path / "set", tmp_path / "set", overwrite=True)


def test_a_full_disk_leaves_nothing(
    folder: GemFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add(folder.image("a.jpg"))
    out = round_trip(folder, tmp_path)
    shutil.rmtree(out)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lerobot_gem.data.gem_jsonl.exporting.record_of", full)
    with pytest.raises(OSError, match="No space left on the disk"):
        export(tmp_path / "set", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gem", "set"]
