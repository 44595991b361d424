"""Public benchmarks are read in the layouts in which they are published."""

import json
from pathlib import Path

import pytest

from lerobot_gem.evaluation.vqa_benchmarks import BenchmarkOptions, BenchmarkRow, read_benchmark
from tests.evaluation.benchmark_files import CV_RECORDS, SIZE, VSI_RECORDS, WRITERS, picture


def read(name: str, tmp_path: Path, **options) -> list[BenchmarkRow]:
    return read_benchmark(BenchmarkOptions(name, WRITERS[name](tmp_path / name), **options))


def shades(row: BenchmarkRow) -> list[int]:
    images = row.load()
    assert all(image.shape == (3, *SIZE) for image in images)
    return [round(image.mean().item() * 255) for image in images]


def test_vsi_bench_shows_frames_of_a_video_or_of_a_folder(tmp_path):
    rows = read("vsi_bench", tmp_path, num_frames=4)
    assert [row.images for row in rows] == ["arkitscenes/41069025"] * 2 + ["scannet/scene0000_00"] * 3
    by_kind = {row.kind: row for row in rows}
    assert shades(by_kind["room_size_estimation"]) == [0, 10, 30, 40]
    assert shades(by_kind["object_counting"]) == pytest.approx([0, 32, 66, 98], abs=4)
    assert {(row.kind, row.answer) for row in rows} == {
        (record["question_type"], record["ground_truth"]) for record in VSI_RECORDS
    }
    assert by_kind["object_counting"].question.splitlines() == [
        "These are frames of a video.",
        "What of 0?",
        "Please answer the question using a single word or phrase.",
    ]
    assert by_kind["object_rel_direction_easy"].question.splitlines() == [
        "These are frames of a video.",
        "What of 2?",
        "Options:",
        "A. left",
        "B. right",
        "Answer with the option's letter from the given choices directly.",
    ]


def test_fewer_frames_than_asked_for_are_all_shown(tmp_path):
    rows = read("vsi_bench", tmp_path)
    assert [len(rows[place].load()) for place in (0, -1)] == [5, 32]


def test_cv_bench(tmp_path):
    rows = read("cv_bench", tmp_path)
    assert [(row.kind, row.group, f"({row.answer})") for row in rows] == [record[1:] for record in CV_RECORDS]
    assert [shades(row) for row in rows] == [[number] for number in range(5)]
    assert rows[0].question.endswith(
        "(A) one\n(B) two\nAnswer with the option's letter from the given choices directly."
    )
    assert {row.options for row in rows} == {2}


def test_cv_bench_with_its_images_in_a_folder(tmp_path):
    (tmp_path / "img" / "2D").mkdir(parents=True)
    (tmp_path / "img" / "2D" / "0.png").write_bytes(picture(7))
    record = {"idx": 0, "task": "Count", "choices": ["1", "2", "3"], "answer": "(C)", "source": "COCO"}
    record |= {"prompt": "How many?", "filename": "2D/0.png"}
    (tmp_path / "test_2d.jsonl").write_text(json.dumps(record))
    [row] = read_benchmark(BenchmarkOptions("cv_bench", tmp_path))
    assert (row.answer, row.options, shades(row)) == ("C", 3, [7])
    (tmp_path / "img" / "2D" / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no image .*2D/0.png: expected it beside the anno"):
        row.load()


def test_embspatial(tmp_path):
    rows = {row.name: row for row in read("embspatial", tmp_path)}
    assert {name: (row.kind, row.answer) for name, row in rows.items()} == {
        "mp3d_0": ("close", "C"),
        "ai2thor_1": ("under", "B"),
        "scannet_2": ("close", "A"),
    }
    assert shades(rows["scannet_2"]) == [2]
    assert rows["mp3d_0"].question.splitlines()[1:5] == ["A. door", "B. cabinet", "C. table", "D. cart"]


def test_robospatial_home(tmp_path):
    rows = {row.question: row for row in read("robospatial_home", tmp_path)}
    assert {row.kind: row.form for row in rows.values()} == {
        "configuration": "yes_no",
        "compatibility": "yes_no",
        "context": "polygon",
    }
    assert [shades(row) for row in rows.values()] and shades(rows["Pinpoint points left of the bowl."]) == [3]
    assert len({row.images for row in rows.values()}) == 4  # of one path, and four pictures


def test_robospatial_home_as_their_script_writes_it(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "img_context_0.png").write_bytes(picture(9))
    record = {
        "category": "configuration",
        "question": "Is it?",
        "answer": "no",
        "img": "images/img_context_0.png",
    }
    (tmp_path / "annotations.json").write_text(json.dumps([record]))
    [row] = read_benchmark(BenchmarkOptions("robospatial_home", tmp_path))
    assert (row.answer, shades(row)) == ("no", [9])


def test_what_is_no_benchmark_is_named(tmp_path):
    with pytest.raises(
        ValueError, match="benchmark.name='mmsi' is unknown: expected one of 'vsi_bench', 'cv_"
    ):
        BenchmarkOptions("mmsi", tmp_path)
    with pytest.raises(ValueError, match="benchmark.num_frames=0: expected at least 1"):
        BenchmarkOptions("vsi_bench", tmp_path, num_frames=0)
    with pytest.raises(
        FileNotFoundError, match=r"holds no cv_bench: expected test_\?d.parquet or test.parquet"
    ):
        read_benchmark(BenchmarkOptions("cv_bench", tmp_path))
    (tmp_path / "test.jsonl").write_text("{}\n")
    with pytest.raises(
        ValueError, match=r"test.jsonl has no 'question_type'; it has \[\]: expected vsi_bench"
    ):
        read_benchmark(BenchmarkOptions("vsi_bench", tmp_path))
    for text in ("<html>", "[" * 200_000):
        (tmp_path / "test.jsonl").write_text(text)
        with pytest.raises(
            ValueError, match=r"test.jsonl is no JSON .*: expected one array, or one object in each"
        ):
            read_benchmark(BenchmarkOptions("vsi_bench", tmp_path))
