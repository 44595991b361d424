"""The metrics of public benchmarks, by examples worked out by hand."""

from dataclasses import replace

import pytest

from lerobot_gem.evaluation.vqa_benchmark_scores import (
    contains_point,
    score_benchmark,
    score_benchmark_answer,
)
from lerobot_gem.evaluation.vqa_benchmarks import BenchmarkOptions, BenchmarkRow, read_benchmark
from tests.evaluation.benchmark_files import WRITERS

AREA = "[(0.2, 0.2), (0.6, 0.2), (0.6, 0.7), (0.2, 0.7)]"


def row(kind: str, answer: str, form: str, *, options: int = 0, group: str = "") -> BenchmarkRow:
    return BenchmarkRow("1", kind, group or kind, "?", options, answer, form, "image", list)


@pytest.mark.parametrize(
    ("form", "truth", "answer", "expected"),
    [
        ("letter", "B", "B", 1),
        ("letter", "B", "b.", 1),
        ("letter", "B", "B. the left one", 1),
        ("letter", "B", "(B) the left one", 1),
        ("letter", "B", "A", 0),
        ("letter", "B", "the left one", None),
        ("letter", "B", "", None),
        # MRA: the number of thresholds 0.5, 0.55 ... 0.95 whose 1 - theta the relative error does not exceed.
        ("first_number", "4", "4", 1),
        ("first_number", "4", "4.0 chairs", 1),
        ("first_number", "4", "3", 0.6),  # 0.25 <= 0.5 ... 0.25
        ("first_number", "4", "2", 0.1),  # 0.5 <= 0.5
        ("first_number", "4", "9", 0),
        ("first_number", "20.0", "19.", 1),  # 0.05 <= 0.05
        ("first_number", "4", "four", None),
        ("first_number", "4", "nan", None),
        ("yes_no", "yes", "Yes, it is.", 1),
        ("yes_no", "no", "Nothing there", 1),  # as published: the answer begins with it
        ("yes_no", "no", "It is not", None),
        ("polygon", AREA, "[(0.3, 0.5), (0.9, 0.9)]", 1),  # the first point counts
        ("polygon", AREA, "(0.9, 0.9) or (0.3, 0.5)", 0),
        ("polygon", AREA, "at [0.3, 0.5]", 1),
        ("polygon", AREA, '{"point_2d": [300, 500]}', 1),
        ("polygon", AREA, "to the left", None),
    ],
)
def test_an_answer(form, truth, answer, expected):
    assert score_benchmark_answer(row("kind", truth, form), answer) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_a_point_in_a_polygon_that_is_not_convex():
    u = [(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]
    assert contains_point(u, (0.5, 2)) and contains_point(u, (2.5, 2)) and contains_point(u, (1.5, 0.5))
    assert (
        not contains_point(u, (1.5, 2)) and not contains_point(u, (4, 1)) and not contains_point(u, (-1, 1))
    )


def test_vsi_bench_averages_tasks_and_counts_directions_as_one():
    rows = [
        row("object_counting", "4", "first_number"),
        row("object_counting", "2", "first_number"),
        row("object_rel_direction_easy", "A", "letter", options=2),
        row("object_rel_direction_medium", "A", "letter", options=3),
        row("object_rel_direction_hard", "A", "letter", options=4),
        row("route_planning", "B", "letter", options=4),
    ]
    kinds, averages = score_benchmark("vsi_bench", rows, ["3", "2", "A", "B", "A", "C"])
    assert {kind.kind: kind.metrics[0].score for kind in kinds} == pytest.approx(
        {
            "object_counting": 0.8,
            "object_rel_direction_easy": 1,
            "object_rel_direction_hard": 1,
            "object_rel_direction_medium": 0,
            "route_planning": 0,
        }
    )
    assert averages["average"].score == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    # Guessing: a number of another question (4 for 2: nothing; 2 for 4: 0.1), or one of the options.
    guessed = ((1 + 0.1) / 2 + (0 + 1) / 2) / 2, (1 / 2 + 1 / 3 + 1 / 4) / 3, 1 / 4
    assert averages["average"].random == pytest.approx(sum(guessed) / 3)
    # Always 2: 0.1 and 1; always A; always B.
    assert averages["average"].constant == pytest.approx((0.55 + 1 + 1) / 3)
    assert {kind.kind: kind.metrics[0].baseline_answer for kind in kinds}["object_counting"] == "2"


def test_cv_bench_averages_sources():
    sources = ["ADE20K", "ADE20K", "COCO", "Omni3D", "Omni3D"]
    rows = [row("Count", "A", "letter", options=2, group=source) for source in sources]
    _, averages = score_benchmark("cv_bench", rows, ["A", "B", "A", "B", "B"])
    assert {name: average.score for name, average in averages.items()} == {
        "2D": 0.75,
        "3D": 0,
        "average": 0.375,
    }
    assert averages["average"].random == 0.5


def test_embspatial_is_accuracy_over_all_questions():
    rows = [row("close", "A", "letter", options=4)] * 3 + [row("under", "B", "letter", options=4)]
    kinds, averages = score_benchmark("embspatial", rows, ["A", "A", "B", "hm"])
    assert averages["average"].score == 0.5
    assert [(kind.kind, kind.n, kind.unparsed) for kind in kinds] == [("close", 3, 0), ("under", 1, 1)]


def test_robospatial_home_averages_categories():
    rows = [
        *[row("configuration", answer, "yes_no", options=2) for answer in ("yes", "no", "yes", "yes")],
        row("compatibility", "no", "yes_no", options=2),
        row("context", AREA, "polygon"),
    ]
    _, averages = score_benchmark("robospatial_home", rows, ["yes", "yes", "no", "yes", "no", "(0.5, 0.5)"])
    assert averages["VQA"].score == 0.75
    assert averages["average"].score == pytest.approx((0.5 + 1 + 1) / 3)
    assert averages["average"].random == pytest.approx(
        (0.5 + 0.5 + 0.4 * 0.5) / 3
    )  # the area is a fifth of the image
    assert averages["average"].constant == pytest.approx((0.75 + 1 + 1) / 3)  # always the middle of the area


@pytest.mark.parametrize("name", WRITERS)
def test_right_answers_score_one(name, tmp_path):
    rows = read_benchmark(BenchmarkOptions(name, WRITERS[name](tmp_path / name)))
    answers = ["(0.4, 0.4)" if asked.form == "polygon" else asked.answer for asked in rows]
    kinds, averages = score_benchmark(name, rows, answers)
    assert all(metric.score == 1 for kind in kinds for metric in kind.metrics)
    assert {average.score for average in averages.values()} == {1}
    assert all(0 < average.random < 1 for average in averages.values())


def test_an_answer_key_of_another_form_is_named():
    asked = replace(row("context", "somewhere", "polygon"), name="7")
    with pytest.raises(
        ValueError, match=r"answer of question 7 \(context\) is 'somewhere'.*: expected a polygon"
    ):
        score_benchmark_answer(asked, "(0.5, 0.5)")
