"""Tables of what experiments measured."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from scipy.stats import ttest_1samp

from lerobot_gem.results.counts import mcnemar, wilson

# Of a t-test: two say nothing.
LEAST_SEEDS = 3


def table(header: str, rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    columns = header.count("|") + 1
    lines = [f"| {header} |", "|---" * columns + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean, and the range of several."""
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def about_tests(baseline: str) -> str:
    """What the last of `success_cells` says, for a reader of its table."""
    return (
        f'"won : lost against {baseline}" counts layouts, with each seed, that one of both solved; p is McNemar\'s exact test, and "over seeds" a '
        f"paired t-test over the successes of {LEAST_SEEDS} seeds or more. No p is corrected for the number of tests."
    )


def over_seeds(values: Mapping[int, float], baseline: Mapping[int, float]) -> str:
    """The p of a paired t-test over the seeds of both: whether another seed would show the difference too; empty if there are too few."""
    more = [values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())]
    if len(more) < LEAST_SEEDS or len(set(more)) == 1:  # without spread there is no t
        return ""
    return f"p = {ttest_1samp(more, 0).pvalue:.1g}"


def success_cells(solved: Mapping[int, Sequence[int]], baseline: Mapping[int, Sequence[int]]) -> list[str]:
    """Successes over all seeds, their Wilson interval, percent by seed, and tests against a baseline.

    McNemar's test counts pairs of layout and seed, and so says whether these policies differ; `over_seeds` is the other one.

    Args:
        solved: Seed -> whether each layout was solved.
        baseline: The same of what it is compared with; empty for the baseline itself.
    """
    outcomes = [outcome for of_seed in solved.values() for outcome in of_seed]
    low, high = wilson(sum(outcomes), len(outcomes))
    pairs = [
        (bool(one), bool(other))
        for seed in sorted(solved.keys() & baseline.keys())
        for one, other in zip(solved[seed], baseline[seed], strict=True)
    ]
    won, lost, p = mcnemar(pairs)
    against = f"{won} : {lost}, p = {p:.1g}" if pairs else ""
    successes, others = (
        {seed: sum(of_seed) for seed, of_seed in by_seed.items()} for by_seed in (solved, baseline)
    )
    if found := over_seeds(successes, others):
        against += f"; over seeds {found}"
    return [
        f"{sum(outcomes)} of {len(outcomes)}",
        f"{100 * low:.0f} to {100 * high:.0f} %",
        ", ".join(f"{100 * statistics.mean(of_seed):.0f}" for of_seed in solved.values()),
        against,
    ]
