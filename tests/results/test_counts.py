"""Intervals and tests against numbers known from elsewhere."""

import pytest

from lerobot_gem.results.counts import compare, counts
from lerobot_gem.results.eval_info import TaskResult


def result(successes: list[bool], suite: str = "a", task_id: int = 0) -> TaskResult:
    return TaskResult(suite, task_id, tuple(successes), tuple(float(s) for s in successes))


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    # Wilson (1927): closed form, by hand; 0 of 10 and 10 of 10 are mirror images.
    [(26, 30, 0.7032, 0.9469), (10, 30, 0.1923, 0.5122), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],
)
def test_wilson(successes: int, episodes: int, low: float, high: float) -> None:
    made = counts([result([i < successes for i in range(episodes)])])[0]
    assert (made.episodes, made.successes) == (episodes, successes)
    assert made.low == pytest.approx(low, abs=1e-4) and made.high == pytest.approx(high, abs=1e-4)


def test_tasks_suites_and_all() -> None:
    made = counts([result([True, False], "a", 0), result([True], "a", 4), result([False], "b", 0)])
    assert [(c.suite, c.task_id, c.episodes, c.successes) for c in made] == [
        ("a", 0, 2, 1),
        ("a", 4, 1, 1),
        ("a", None, 3, 2),
        ("b", 0, 1, 0),
        ("b", None, 1, 0),
        (None, None, 4, 2),
    ]


def test_mcnemar() -> None:
    # 17 solved by the first alone, 1 by the second alone: 2 * (1 + 18) / 2**18.
    first = [True] * 17 + [False] + [True] * 9 + [False] * 3
    second = [False] * 17 + [True] + [True] * 9 + [False] * 3
    pair = compare("x", [result(first)], "y", [result(second)])
    assert (pair.episodes, pair.first_alone, pair.second_alone) == (30, 17, 1)
    assert pair.p == pytest.approx(2 * 19 / 2**18)
    assert compare("x", [result(first)], "y", [result(first)]).p == 1.0


def test_other_episodes_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="x and y can't be paired: of a task 1 they have 0 and 1 episodes"):
        compare("x", [result([True])], "y", [result([True]), result([True], "a", 1)])
