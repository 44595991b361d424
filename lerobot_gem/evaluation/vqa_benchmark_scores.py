"""Scores of answers to public benchmarks, as each was published.

| benchmark | each question | averages |
|---|---|---|
| `vsi_bench` | the first word, a full stop stripped: equal letters, or the mean relative accuracy (MRA) of a number | mean over its eight tasks, in which the three difficulties of direction are one (its lmms-eval task) |
| `cv_bench` | equal letters | 2D = (ADE20K + COCO) / 2, 3D = Omni3D, and the mean of both (its dataset card) |
| `embspatial` | equal letters | accuracy over all questions |
| `robospatial_home` | yes or no begins the answer; the first point lies in the area (its RoboSpatial-Eval) | VQA = (configuration + compatibility) / 2, total = mean of the three categories |

A letter is also read where a bracket or a point follows it ("(B)", "B. the left one"), and a point in Qwen3-VL's notation, 0 to
1000. MRA counts an error that equals a limit as right, as the benchmark's code does, which its published numbers come from; the
paper does not (`mean_relative_accuracy`).
"""

import ast
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from lerobot_gem.evaluation.vqa_benchmarks import BenchmarkForm, BenchmarkRow
from lerobot_gem.evaluation.vqa_scores import (
    KindScores,
    MetricScore,
    best_constant,
    interval,
    mean,
    mean_relative_accuracy,
)
from lerobot_gem.processing.answers import COORDINATES, Point, parse

_ANY_SIZE = (1, 1)
_TUPLE = re.compile(r"\(\s*(\d+\.?\d*)\s*,\s*(\d+\.?\d*)\s*\)")
_LIST = re.compile(r"\[\s*(\d+\.?\d*)\s*,\s*(\d+\.?\d*)\s*\]")
_DIRECTION = "object_rel_direction"


@dataclass(frozen=True)
class Average:
    """A number that a benchmark reports.

    Attributes:
        score: Of the model.
        constant: Of always giving the same answer, for each kind the best of the right ones.
        random: Expected of guessing: one of the options, a right answer of another question of the kind, a point anywhere.
    """

    score: float
    constant: float
    random: float


@dataclass(frozen=True)
class _Reading:
    """How answers of a form are read and scored.

    Attributes:
        metric: Its name.
        read: The answer of a model; None if it can't be read.
        truth: The right answer.
        score: 0 to 1.
        is_proportion: Scores are 0 or 1.
        constant: An answer that is right, for the constant baseline.
    """

    metric: str
    read: Callable[[str], Any]
    truth: Callable[[str], Any]
    score: Callable[[Any, Any], float]
    is_proportion: bool = True
    constant: Callable[[str], str] = str


def score_benchmark_answer(row: BenchmarkRow, answer: str) -> float | None:
    """0 to 1; None if the answer can't be read.

    Raises:
        ValueError: The right answer is not of its form.
    """
    reading = _READINGS[row.form]
    read = reading.read(answer)
    return None if read is None else reading.score(read, _truth(row))


def score_benchmark(
    name: str, rows: Sequence[BenchmarkRow], answers: Sequence[str], *, seed: int = 0
) -> tuple[list[KindScores], dict[str, Average]]:
    """Scores by kind, in alphabetical order, and the published averages.

    Averages are over what was asked: with a part of the kinds or questions they are not the published ones.

    Args:
        name: Of the benchmark.
        rows: Questions.
        answers: One for each.
        seed: Of the bootstrap.
    """
    found = [score_benchmark_answer(row, answer) for row, answer in zip(rows, answers, strict=True)]
    scores = [score or 0.0 for score in found]
    kinds, constant, random = [], [0.0] * len(rows), [0.0] * len(rows)
    for kind in sorted({row.kind for row in rows}):
        places = [place for place, row in enumerate(rows) if row.kind == kind]
        members = [rows[place] for place in places]
        values = [scores[place] for place in places]
        answer, constants = _best_constant(members)
        for place, always, guessed in zip(places, constants, _expected_of_guessing(members), strict=True):
            constant[place], random[place] = always, guessed
        reading = _READINGS[members[0].form]
        bounds = interval(values, seed, is_proportion=reading.is_proportion)
        metric = MetricScore(reading.metric, len(values), mean(values), *bounds, mean(constants), answer)
        kinds.append(
            KindScores(kind, len(members), sum(found[place] is None for place in places), 0, [metric])
        )
    averages = [_AVERAGES[name](rows, values) for values in (scores, constant, random)]
    return kinds, {key: Average(*(values[key] for values in averages)) for key in averages[0]}


def contains_point(polygon: Sequence[Point], point: Point) -> bool:
    """Whether a point lies in a polygon, by the parity of the edges that a ray to its right crosses."""
    x, y = point
    crossings = 0
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            crossings += 1
    return crossings % 2 == 1


def _letter(answer: str) -> str | None:
    word = _first_word(answer).upper()
    if len(word) == 1 and word.isalpha():
        return word
    letter: str | None = parse(answer, "choice", _ANY_SIZE)
    return letter


def _number(answer: str) -> Decimal | None:
    try:
        number = Decimal(_first_word(answer))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _first_word(answer: str) -> str:
    return answer.strip().split(" ")[0].rstrip(".").strip()


def _yes_no(answer: str) -> str | None:
    text = answer.strip().lower()
    return next((word for word in ("yes", "no") if text.startswith(word)), None)


def _point(answer: str) -> Point | None:
    if (point := parse(answer, "point", (int(COORDINATES), int(COORDINATES)))) is not None:
        return point[0] / COORDINATES, point[1] / COORDINATES
    match = _TUPLE.search(answer) or _LIST.search(answer)
    return None if match is None else (float(match[1]), float(match[2]))


def _polygon(answer: str) -> list[Point]:
    corners = [(float(x), float(y)) for x, y in ast.literal_eval(answer)]
    if len(corners) < 3:
        raise ValueError(f"{len(corners)} corners")
    return corners


def _truth(row: BenchmarkRow) -> Any:
    try:
        truth = _READINGS[row.form].truth(row.answer)
    except (ValueError, SyntaxError, TypeError) as error:
        truth, reason = None, f" ({error})"
    else:
        reason = ""
    if truth is None:
        raise ValueError(
            f"The right answer of question {row.name} ({row.kind}) is {row.answer[:200]!r}{reason}: expected a {row.form}. Is this "
            "the benchmark as published?"
        )
    return truth


def _center(answer: str) -> str:
    corners = _polygon(answer)
    x, y = (math.fsum(values) / len(corners) for values in zip(*corners, strict=True))
    return f"({x:.4f}, {y:.4f})"


def _area(polygon: Sequence[Point]) -> float:
    """Share of the image that a polygon covers."""
    ring = [*polygon, polygon[0]]
    return abs(math.fsum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:], strict=False))) / 2


_READINGS: Mapping[BenchmarkForm, _Reading] = {
    "letter": _Reading("accuracy", _letter, _letter, lambda read, truth: float(read == truth)),
    "first_number": _Reading(
        "mra",
        _number,
        _number,
        lambda read, truth: mean_relative_accuracy(read, truth, at_the_limit=True),
        is_proportion=False,
    ),
    "yes_no": _Reading("accuracy", _yes_no, _yes_no, lambda read, truth: float(read == truth)),
    "polygon": _Reading(
        "in_area",
        _point,
        _polygon,
        lambda point, polygon: float(contains_point(polygon, point)),
        constant=_center,
    ),
}


def _best_constant(rows: Sequence[BenchmarkRow]) -> tuple[str, list[float]]:
    return best_constant(
        (_READINGS[row.form].constant(row.answer) for row in rows),
        lambda answer: [score_benchmark_answer(row, answer) or 0.0 for row in rows],
    )


def _expected_of_guessing(rows: Sequence[BenchmarkRow]) -> list[float]:
    expected = []
    numbers = [_truth(row) for row in rows if row.form == "first_number"]
    score = _READINGS["first_number"].score
    for row in rows:
        if row.form == "polygon":
            expected.append(_area(_truth(row)))
        elif row.form == "first_number":
            truth = _truth(row)
            expected.append(mean([score(number, truth) for number in numbers]))
        else:
            expected.append(1 / row.options)
    return expected


def _by(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Means of values by name."""
    members = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        members[name].append(value)
    return {name: mean(found) for name, found in members.items()}


def _vsi_averages(rows: Sequence[BenchmarkRow], values: Sequence[float]) -> dict[str, float]:
    kinds = _by([row.kind for row in rows], values)
    directions = [value for kind, value in kinds.items() if kind.startswith(_DIRECTION)]
    tasks = [value for kind, value in kinds.items() if not kind.startswith(_DIRECTION)]
    return {"average": mean(tasks + ([mean(directions)] if directions else []))}


def _cv_averages(rows: Sequence[BenchmarkRow], values: Sequence[float]) -> dict[str, float]:
    sources = _by([row.group for row in rows], values)
    sides = {
        name: [sources[source] for source in members if source in sources]
        for name, members in (("2D", ("ADE20K", "COCO")), ("3D", ("Omni3D",)))
    }
    averages = {name: mean(found) for name, found in sides.items() if found}
    return {**averages, "average": mean(list(averages.values()))}


def _embspatial_averages(rows: Sequence[BenchmarkRow], values: Sequence[float]) -> dict[str, float]:
    return {"average": mean(values)}


def _robospatial_averages(rows: Sequence[BenchmarkRow], values: Sequence[float]) -> dict[str, float]:
    categories = _by([row.group for row in rows], values)
    questions = [value for name, value in categories.items() if name != "context"]
    averages = {"VQA": mean(questions)} if questions else {}
    return {**averages, "average": mean(list(categories.values()))}


_AVERAGES: Mapping[str, Callable[[Sequence[BenchmarkRow], Sequence[float]], dict[str, float]]] = {
    "vsi_bench": _vsi_averages,
    "cv_bench": _cv_averages,
    "embspatial": _embspatial_averages,
    "robospatial_home": _robospatial_averages,
}
