"""Scores of answers about images, by kind of question; no model in here.

| form of the right answer | metric | what it is |
|---|---|---|
| point | `in_object` | share of points inside the box of the object, which another question of the frame gives |
| | `within_5%` | share of points at most 50 of Qwen3-VL's 0 to 1000 coordinates away from the right one |
| box | `iou` | intersection over union |
| | `acc@0.5` | share of at least a half, the criterion of RefCOCO |
| number | `exact` | share of equal numbers |
| | `mra` | mean relative accuracy of VSI-Bench (arXiv 2412.14171) |
| yes or no, choice, text | `exact` | share of equal answers |

An answer that can't be read as what was asked for counts as wrong, and is counted.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import bootstrap
from torchvision.ops import box_iou

from lerobot_gem.processing.answers import Box, Form, Point, Quantity, form_of, parse
from lerobot_gem.results.counts import wilson

# theta = 0.5, 0.55, ... 0.95 (VSI-Bench, section 3).
MRA_THRESHOLDS = tuple(Decimal(percent) / 100 for percent in range(50, 100, 5))
POINT_TOLERANCE = 50.0
_RESAMPLES = 1000
# The baseline tries that many of the most common answers.
_CONSTANTS = 100


@dataclass(frozen=True)
class VqaRow:
    """A question about a frame, and its right answer.

    Attributes:
        index: Of the frame in the whole dataset.
        episode: Its episode.
        cameras: Observation keys of the images that are shown, in order.
        question: As asked.
        answer: The right one.
        kind: What is asked for; scores are grouped by it.
        size: Width and height of the first image in pixels.
        region: Where the object of a point is, in coordinates from 0 to 1000; None if no row tells.
    """

    index: int
    episode: int
    cameras: tuple[str, ...]
    question: str
    answer: str
    kind: str
    size: tuple[int, int]
    region: Box | None = None

    @cached_property
    def form(self) -> Form:
        """The form of the right answer."""
        return form_of(self.answer)


@dataclass(frozen=True)
class Metric:
    """One way to score answers of a form.

    Attributes:
        name: As reported.
        score: From the answer, the right one, and the row's region: 0 (wrong) to 1 (right).
        is_proportion: Scores are 0 or 1, nothing between.
        needs_region: Applies to rows with a region only.
    """

    name: str
    score: Callable[[Any, Any, Any], float]
    is_proportion: bool = True
    needs_region: bool = False


@dataclass(frozen=True)
class MetricScore:
    """A metric over the rows of a kind.

    Attributes:
        metric: Its name.
        n: Rows that it applies to.
        score: Mean over them.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        baseline: Score on the same rows of always giving the same answer, the best of the most common ones. For exact
            matches that is the majority answer.
        baseline_answer: That answer.
    """

    metric: str
    n: int
    score: float
    low: float
    high: float
    baseline: float
    baseline_answer: str


@dataclass(frozen=True)
class KindScores:
    """The scores of one kind of question.

    Attributes:
        kind: Its name.
        n: Rows.
        unparsed: Answers that could not be read.
        without_region: Points whose object has no box among the questions of its frame, which `in_object` leaves out.
        metrics: The metrics that apply to at least one row.
    """

    kind: str
    n: int
    unparsed: int
    without_region: int
    metrics: list[MetricScore]


def mean_relative_accuracy(predicted: Decimal, truth: Decimal, *, at_the_limit: bool = False) -> float:
    """VSI-Bench's MRA: share of thresholds theta with `|predicted - truth| / |truth| < 1 - theta`.

    Decimals, so that an error that equals a limit is not decided by rounding. Where the truth is zero the relative error
    does not exist: 1 for zero, else 0.

    Args:
        predicted: The answer.
        truth: The right one.
        at_the_limit: Count an error that equals a limit as right, as the benchmark's code does; its paper does not.
    """
    if truth == 0:
        return float(predicted == 0)
    error = abs(predicted - truth) / abs(truth)
    within = (error <= 1 - theta if at_the_limit else error < 1 - theta for theta in MRA_THRESHOLDS)
    return sum(within) / len(MRA_THRESHOLDS)


def boxes_iou(predicted: Sequence[Box], truth: Sequence[Box]) -> float:
    """Mean intersection over union (IoU) of boxes matched one to one, as well as they can be.

    A box without partner counts as 0. So does one without area, as one whose right end is left of its left end.
    """
    first, second = (torch.tensor(boxes, dtype=torch.float64) for boxes in (predicted, truth))
    # Two boxes without area have none in common and none together.
    ious = box_iou(first, second).nan_to_num().numpy()
    matched = ious[linear_sum_assignment(ious, maximize=True)]
    return float(matched.sum()) / max(len(predicted), len(truth))


def contains(box: Box, point: Point) -> bool:
    """Whether a point is in a box or on its edge."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _compared(predicted: Quantity, truth: Quantity) -> tuple[Decimal, Decimal]:
    """Both values in one unit; as they were written if either has none."""
    if predicted.unit and truth.unit:
        return predicted.value, truth.value
    return predicted.written, truth.written


def _equal(predicted: Any, truth: Any, _: None) -> float:
    if isinstance(truth, Quantity):
        predicted, truth = _compared(predicted, truth)
    return float(predicted == truth)


_EXACT = Metric("exact", _equal)
METRICS: Mapping[Form, Sequence[Metric]] = {
    "point": (
        Metric("in_object", lambda point, _, region: float(contains(region, point)), needs_region=True),
        Metric("within_5%", lambda point, truth, _: float(math.dist(point, truth) <= POINT_TOLERANCE)),
    ),
    "box": (
        Metric("iou", lambda boxes, truth, _: boxes_iou(boxes, truth), is_proportion=False),
        Metric("acc@0.5", lambda boxes, truth, _: float(boxes_iou(boxes, truth) >= 0.5)),
    ),
    "number": (
        _EXACT,
        Metric(
            "mra",
            lambda number, truth, _: mean_relative_accuracy(*_compared(number, truth)),
            is_proportion=False,
        ),
    ),
    "yes_no": (_EXACT,),
    "choice": (_EXACT,),
    "text": (_EXACT,),
}


def score_answer(row: VqaRow, answer: str) -> dict[str, float] | None:
    """Score one answer.

    Returns:
        Metric -> 0 to 1, of those that apply to the row; None if the answer can't be read.
    """
    form = row.form
    read, truth = (parse(text, form, row.size) for text in (answer, row.answer))
    if read is None:
        return None
    return {metric.name: metric.score(read, truth, row.region) for metric in _applying(row)}


def score_answers(rows: Sequence[VqaRow], answers: Sequence[str], *, seed: int = 0) -> list[KindScores]:
    """Score answers, by kind in alphabetical order.

    Args:
        rows: Questions, in any order.
        answers: One for each row.
        seed: Of the bootstrap.
    """
    scores = [score_answer(row, answer) for row, answer in zip(rows, answers, strict=True)]
    results = []
    for kind in sorted({row.kind for row in rows}):
        members = [(row, found) for row, found in zip(rows, scores, strict=True) if row.kind == kind]
        metrics = {metric.name: metric for row, _ in members for metric in _applying(row)}
        results.append(
            KindScores(
                kind=kind,
                n=len(members),
                unparsed=sum(found is None for _, found in members),
                without_region=sum(row.form == "point" and row.region is None for row, _ in members),
                metrics=[_over(metric, members, seed) for metric in metrics.values()],
            )
        )
    return results


def _applying(row: VqaRow) -> list[Metric]:
    return [metric for metric in METRICS[row.form] if row.region is not None or not metric.needs_region]


def _over(
    metric: Metric, members: Sequence[tuple[VqaRow, dict[str, float] | None]], seed: int
) -> MetricScore:
    """One metric over those rows of a kind that it applies to."""
    asked = [(row, found) for row, found in members if metric in _applying(row)]
    values = [found[metric.name] if found else 0.0 for _, found in asked]
    constant, baseline = _best_constant(metric, [row for row, _ in asked])
    return MetricScore(
        metric.name,
        len(values),
        mean(values),
        *interval(values, seed, is_proportion=metric.is_proportion),
        mean(baseline),
        constant,
    )


def _best_constant(metric: Metric, rows: Sequence[VqaRow]) -> tuple[str, list[float]]:
    asked = [(row.form, row.size) for row in rows]
    truths = [parse(row.answer, *how) for row, how in zip(rows, asked, strict=True)]

    def scores(answer: str) -> list[float]:
        read = {how: parse(answer, *how) for how in set(asked)}
        return [
            0.0 if read[how] is None else metric.score(read[how], truth, row.region)
            for row, how, truth in zip(rows, asked, truths, strict=True)
        ]

    return best_constant((row.answer for row in rows), scores)


def best_constant(answers: Iterable[str], scores: Callable[[str], list[float]]) -> tuple[str, list[float]]:
    """The best single answer to all questions, of the 100 most common right ones, since most points and boxes occur once.

    Args:
        answers: The right ones.
        scores: Of all questions, if each is given this answer.

    Returns:
        The answer, of equals the most common one, and its scores.
    """
    tried = ((answer, scores(answer)) for answer, _ in Counter(answers).most_common(_CONSTANTS))
    return max(tried, key=lambda found: mean(found[1]))


def mean(values: Sequence[float]) -> float:
    """Mean of some values, not rounded in between."""
    return math.fsum(values) / len(values)


def interval(values: Sequence[float], seed: int, *, is_proportion: bool) -> tuple[float, float]:
    """95 % interval of the mean: Wilson's of a proportion, else a percentile interval from 1,000 resamples.

    Wilson's too if all values are equal: they resample to themselves, which would claim certainty. Where values lie between 0 and 1,
    their sum is rounded, and the interval is wider than it need be.

    Args:
        values: Scores, 0 to 1.
        seed: Of the resamples.
        is_proportion: Scores are 0 or 1.
    """
    if is_proportion or min(values) == max(values):
        return wilson(round(math.fsum(values)), len(values))
    resampled = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
    )
    return float(resampled.confidence_interval.low), float(resampled.confidence_interval.high)
