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
        f'"it alone : {baseline} alone" counts layouts, with each seed, that one of both solved; p is McNemar\'s exact test, and "over seeds" a '
        f"paired t-test over the successes of {LEAST_SEEDS} seeds or more."
    )


def success_cells(solved: Mapping[int, Sequence[int]], baseline: Mapping[int, Sequence[int]]) -> list[str]:
    """Successes over all seeds, their Wilson interval, percent by seed, and tests against a baseline.

    McNemar's test counts pairs of layout and seed, and so says whether these policies differ. Whether another seed would show it too is
    what the paired t-test over the seeds' successes says, of three seeds or more.

    Args:
        solved: Seed -> whether each layout was solved.
        baseline: The same of what it is compared with; empty for the baseline itself.
    """
    outcomes = [outcome for of_seed in solved.values() for outcome in of_seed]
    low, high = wilson(sum(outcomes), len(outcomes))
    seeds = sorted(solved.keys() & baseline.keys())
    pairs = [
        (bool(one), bool(other))
        for seed in seeds
        for one, other in zip(solved[seed], baseline[seed], strict=True)
    ]
    it_alone, baseline_alone, p = mcnemar(pairs)
    against = f"{it_alone} : {baseline_alone}, p = {p:.1g}" if pairs else ""
    more = [sum(solved[seed]) - sum(baseline[seed]) for seed in seeds]
    if len(seeds) >= LEAST_SEEDS and len(set(more)) > 1:  # without spread there is no t
        against += f"; over seeds p = {ttest_1samp(more, 0).pvalue:.1g}"
    return [
        f"{sum(outcomes)} of {len(outcomes)}",
        f"{100 * low:.0f} to {100 * high:.0f} %",
        ", ".join(f"{100 * statistics.mean(of_seed):.0f}" for of_seed in solved.values()),
        against,
    ]
