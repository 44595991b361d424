"""Scores against values worked out by hand."""

from decimal import Decimal

import pytest

from lerobot_gem.evaluation.vqa_scores import (
    VqaRow,
    boxes_iou,
    interval,
    mean_relative_accuracy,
    score_answer,
    score_answers,
)
from lerobot_gem.processing.answers import form_of


def ask(question: str, answer: str, region=None, kind: str | None = None) -> VqaRow:
    kind = kind or form_of(answer)
    return VqaRow(0, 0, ("observation.images.front",), question, answer, kind, (640, 480), region)


def count(answer: str) -> VqaRow:
    return ask("How many mugs are there?", answer, kind="count")


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        # Relative errors, and the limits 0.5, 0.45, ... 0.05 that are above them.
        ("2", "2", 1.0),
        ("1.02", "1", 1.0),
        ("0.9", "1", 0.8),  # 0.1: not below 0.1 and 0.05, though in floats 1 - 0.9 < 0.1
        ("1.1", "1", 0.8),
        ("3.2", "4", 0.6),  # 0.2
        ("3", "2", 0.0),  # 0.5
        ("1", "2", 0.0),
        ("1.01", "2", 0.1),
        ("100", "2", 0.0),
        ("-2", "2", 0.0),
        ("-2", "-2", 1.0),
        ("0", "0", 1.0),
        ("0.001", "0", 0.0),
        ("0", "2", 0.0),
    ],
)
def test_mean_relative_accuracy(predicted, truth, expected):
    assert mean_relative_accuracy(Decimal(predicted), Decimal(truth)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (50, 50, 60, 60), 0.0),
        ((0, 0, 10, 10), (5, 5, 5, 5), 0.0),
        ((0, 0, 10, 10), (10, 10, 0, 0), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
    ],
)
def test_iou_of_two_boxes(first, second, expected):
    assert boxes_iou([first], [second]) == boxes_iou([second], [first]) == pytest.approx(expected)


def test_several_boxes_are_matched_one_to_one():
    left, right, elsewhere = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)
    assert boxes_iou([right, left], [left, right]) == 1.0
    assert boxes_iou([left], [left, right]) == 0.5
    assert boxes_iou([left, right, elsewhere, elsewhere], [left, right]) == 0.5
    assert boxes_iou([left, left], [left, right]) == 0.5


def test_the_matching_is_the_best_of_all_even_without_the_best_pair():
    # IoUs of 5/8 and 0 one way, of 3/7 and 5/13 the other.
    first, second = (0, 0, 8, 1), (5, 0, 10, 1)
    near, far = (3, 0, 8, 1), (-5, 0, 5, 1)
    assert boxes_iou([first, second], [near, far]) == pytest.approx((3 / 7 + 5 / 13) / 2)
    assert boxes_iou([first], [near]) == pytest.approx(5 / 8)
    assert boxes_iou([second], [far]) == 0


def test_points_are_scored_by_the_object_and_by_distance():
    truth = '{"point_2d": [200, 200]}'
    with_region = ask("Point to the mug.", truth, region=(150, 150, 400, 220))
    assert score_answer(with_region, truth) == {"in_object": 1, "within_5%": 1}
    assert score_answer(with_region, '{"point_2d": [400, 150]}') == {"in_object": 1, "within_5%": 0}
    assert score_answer(with_region, '{"point_2d": [200, 250]}') == {"in_object": 0, "within_5%": 1}
    assert score_answer(with_region, '{"point_2d": [200, 251]}') == {"in_object": 0, "within_5%": 0}
    assert score_answer(ask("Point to the mug.", truth), truth) == {"within_5%": 1}


def test_lengths_compare_across_units_and_as_written_where_one_has_none():
    row = ask("How far is the mug?", "32 cm")
    for answer in ("32 cm", "0.32 m", "320 mm", "32"):
        assert score_answer(row, answer) == {"exact": 1, "mra": 1}
    assert score_answer(row, "0.32") == {"exact": 0, "mra": 0}
    assert score_answer(row, "0.36 m") == {"exact": 0, "mra": 0.8}  # relative error 0.125


def test_answers_that_cannot_be_read_are_wrong_and_counted():
    rows = [count("2"), count("3"), count("3"), count("4")]
    [scores] = score_answers(rows, ["2", "", "many", "5"])
    assert (scores.kind, scores.n, scores.unparsed) == ("count", 4, 2)
    exact, mra = scores.metrics
    assert (exact.metric, exact.n, exact.score) == ("exact", 4, 0.25)
    assert mra.score == pytest.approx((1 + 0 + 0 + 0.5) / 4)  # 5 for 4: relative error 0.25


def test_the_baseline_of_exact_matches_is_the_majority_answer():
    rows = [ask("Is it left of it?", answer) for answer in ("no", "yes", "yes", "no", "yes")]
    [scores] = score_answers(rows, ["no"] * 5)
    [exact] = scores.metrics
    assert exact.score == 0.4
    assert (exact.baseline, exact.baseline_answer) == (0.6, "yes")


def test_the_baseline_of_other_metrics_is_the_best_constant_answer():
    rows = [count(answer) for answer in ("10", "10", "2", "4", "4", "5", "5.1")]
    [scores] = score_answers(rows, ["10"] * 7)
    exact, mra = scores.metrics
    assert (exact.baseline, exact.baseline_answer) == (2 / 7, "10")
    # 4 for 10, 2, 4, 5 and 5.1: errors 0.6, 1, 0, 0.2 and 0.2157.
    assert mra.baseline_answer == "4"
    assert mra.baseline == pytest.approx((2 * 0 + 0 + 2 * 1 + 0.6 + 0.6) / 7)


def test_metrics_count_the_rows_they_apply_to():
    point = '{"point_2d": [200, 200]}'
    rows = [ask("Point to it.", point, region=(100, 100, 300, 300)), ask("Point to it.", point)]
    [scores] = score_answers(rows, [point, "there"])
    assert scores.without_region == 1
    assert [(m.metric, m.n, m.score) for m in scores.metrics] == [
        ("in_object", 1, 1.0),
        ("within_5%", 2, 0.5),
    ]


def test_a_perfect_answerer_scores_one_and_a_mute_one_zero():
    rows = [
        ask("Point to the mug.", '{"point_2d": [200, 200]}', region=(150, 150, 400, 220)),
        ask("Where should the gripper grasp it?", '{"point_2d": [200, 200]}', kind="affordance"),
        ask("Box the mug.", '{"bbox_2d": [13, 17, 391, 777]}'),
        ask("Box all mugs.", '[{"bbox_2d": [0, 0, 10, 10]}, {"bbox_2d": [3, 3, 20, 20]}]'),
        ask("How far is it?", "0.37 m", kind="object_distance"),
        ask("How much of the task is done?", "0 %", kind="progress"),
        count("two"),
        ask("Is it left?", "yes", kind="relation"),
        ask("Which? A. mug B. plate", "B"),
        ask("What do you see?", "A mug and a plate."),
        ask("What do you see?", "5", kind="mixed"),
        ask("What do you see?", "A mug.", kind="mixed"),
    ]
    perfect = score_answers(rows, [row.answer for row in rows])
    assert {scores.kind for scores in perfect} == {
        *(
            "point",
            "affordance",
            "box",
            "object_distance",
            "progress",
            "count",
            "relation",
            "choice",
            "text",
            "mixed",
        )
    }
    for scores in perfect:
        assert scores.unparsed == 0
        assert all(metric.score == 1 == pytest.approx(metric.high) for metric in scores.metrics), scores
        assert all(metric.low < 0.9 for metric in scores.metrics), scores
    for scores in score_answers(rows, [""] * len(rows)):
        assert scores.unparsed == scores.n
        assert all(metric.score == metric.low == 0 and metric.high > 0.1 for metric in scores.metrics), scores


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Wilson's formula, checked with scipy's values.
        (1, 2, 0.0945, 0.9055),
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval(right, n, low, high):
    values = [1.0] * right + [0.0] * (n - right)
    assert interval(values, 0, is_proportion=True) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_interval_is_seeded_and_near_that_of_the_normal_distribution():
    values = [step / 10 for step in range(11)] * 20
    low, high = interval(values, 1, is_proportion=False)
    assert (low, high) == interval(values, 1, is_proportion=False) != interval(values, 2, is_proportion=False)
    half = 1.96 * 0.1**0.5 / 220**0.5  # the variance of 0, 0.1, ... 1 is 0.1
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)


def test_equal_values_have_wilsons_interval():
    values = [0.5] * 10
    assert interval(values, 1, is_proportion=False) == interval(values, 1, is_proportion=True)
