"""Success rates with intervals, and paired comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

from lerobot_gem.results.eval_info import TaskResult


@dataclass(frozen=True)
class Count:
    """Successes among episodes.

    Attributes:
        suite: Of the episodes; None for several.
        task_id: Of the episodes; None for several.
        episodes: Their number.
        successes: How many succeeded.
        low: Lower end of the 95 % Wilson interval of the success rate.
        high: Upper end.
        own_object: Episodes with a negative reward: in `libero_wide` with another object named, those in which the task's
            own object arrived.
    """

    suite: str | None
    task_id: int | None
    episodes: int
    successes: int
    low: float
    high: float
    own_object: int


@dataclass(frozen=True)
class Pair:
    """Two evaluations of the same episodes.

    Attributes:
        first: Name of one.
        second: Name of the other.
        episodes: Pairs.
        first_alone: Episodes in which the first succeeded and the second failed.
        second_alone: The other way round.
        p: Of McNemar's exact test, two-sided.
    """

    first: str
    second: str
    episodes: int
    first_alone: int
    second_alone: int
    p: float


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a success rate."""
    from scipy.stats import binomtest

    interval = binomtest(successes, episodes).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> tuple[int, int, float]:
    """McNemar's exact test, two-sided.

    Args:
        pairs: Whether the first and whether the second succeeded, for each episode.

    Returns:
        Episodes in which the first alone succeeded, in which the second did, and p.
    """
    from scipy.stats import binomtest

    first, second = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    p = float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0
    return first, second, p


def count(results: Sequence[TaskResult], suite: str | None = None, task_id: int | None = None) -> Count:
    """Count the episodes of a task, of a suite, or all of them.

    Args:
        results: All.
        suite: Its episodes alone.
        task_id: Of that suite, its episodes alone.
    """
    chosen = [r for r in results if suite in (None, r.suite) and (task_id is None or task_id == r.task_id)]
    successes = sum(sum(result.successes) for result in chosen)
    episodes = sum(len(result.successes) for result in chosen)
    own = sum(reward < 0 for result in chosen for reward in result.sum_rewards)
    return Count(suite, task_id, episodes, successes, *wilson(successes, episodes), own)


def counts(results: Sequence[TaskResult]) -> list[Count]:
    """Counts of each task, of each suite, and of all suites when there are several."""
    made = []
    suites = sorted({result.suite for result in results})
    for suite in suites:
        made += [count(results, suite, result.task_id) for result in results if result.suite == suite]
        made.append(count(results, suite))
    return made + ([count(results)] if len(suites) > 1 else [])


def compare(first: str, one: Sequence[TaskResult], second: str, other: Sequence[TaskResult]) -> Pair:
    """McNemar's exact test on the episodes of two evaluations, paired by suite, task and place in the order of seeds.

    Args:
        first: Name of the one.
        one: Its results.
        second: Name of the other.
        other: Its results.

    Raises:
        ValueError: They hold different episodes.
    """
    held = [{(r.suite, r.task_id): r.successes for r in results} for results in (one, other)]
    sizes = [{key: len(successes) for key, successes in tasks.items()} for tasks in held]
    if sizes[0] != sizes[1]:
        different = sorted(
            key for key in {*sizes[0], *sizes[1]} if sizes[0].get(key, 0) != sizes[1].get(key, 0)
        )
        suite, task_id = different[0]
        raise ValueError(
            f"{first} and {second} can't be paired: of {suite} task {task_id} they have {sizes[0].get(different[0], 0)} and "
            f"{sizes[1].get(different[0], 0)} episodes. Evaluate both with the same --env.task, --eval.n_episodes and --seed."
        )
    pairs = [pair for key in held[0] for pair in zip(held[0][key], held[1][key], strict=True)]
    return Pair(first, second, len(pairs), *mcnemar(pairs))
