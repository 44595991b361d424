"""How many episodes and seeds show a difference between two success rates (two-sided test at 5 %, power 80 %).

    python examples/episodes_needed.py 94.9 96.1

Unpaired, the two policies act in different episodes. Paired, they act in the same ones, and what counts is the share that exactly
one of them solves (McNemar's test). If their successes have nothing to do with each other, that share is
p (1 - q) + q (1 - p), and pairing gains nothing; a layout that is hard for both makes it smaller, which our own pairs of policies say not to
count on (results/depth_helps/tables.md). Training seeds count as well: two trainings that differ in nothing but the seed have different success
rates. Their numbers here are without a gain from pairing.
"""

import argparse
from math import ceil, sqrt

from scipy.stats import nct, norm, t

SIGNIFICANCE, POWER = 0.05, 0.8
SHARES = (1.0, 0.75, 0.5)
SEED_SPREADS = (0.0, 0.3, 0.5, 1.0)
EPISODES = 2000  # LIBERO: four suites, ten tasks each, 50 initial states each


def independent_share(p: float, q: float) -> float:
    """Share of the episodes that exactly one of two policies solves, if they have nothing to do with each other."""
    return p * (1 - q) + q * (1 - p)


def unpaired(p: float, q: float) -> float:
    """Episodes for each policy (Fleiss, Statistical Methods for Rates and Proportions, without continuity correction)."""
    mean = (p + q) / 2
    null = norm.ppf(1 - SIGNIFICANCE / 2) * sqrt(2 * mean * (1 - mean))
    return ((null + norm.ppf(POWER) * sqrt(p * (1 - p) + q * (1 - q))) / (p - q)) ** 2


def paired(p: float, q: float, share: float) -> float:
    """Pairs of episodes, `share` of which exactly one policy solves (Connor 1987, Biometrics 43)."""
    null = norm.ppf(1 - SIGNIFICANCE / 2) * sqrt(share)
    return ((null + norm.ppf(POWER) * sqrt(share - (p - q) ** 2)) / (p - q)) ** 2


def seeds(p: float, q: float, share: float, spread: float) -> int:
    """Pairs of trainings, each evaluated on the same `EPISODES`, for a paired t-test over the seeds.

    Args:
        p: One success rate.
        q: The other.
        share: Of the episodes, exactly one policy solves.
        spread: Standard deviation of a policy's success rate over training seeds.
    """
    deviation = sqrt(2 * spread**2 + share / EPISODES)
    for number in range(2, 10_000):
        shift, critical = abs(p - q) / deviation * sqrt(number), t.ppf(1 - SIGNIFICANCE / 2, number - 1)
        if nct.sf(critical, number - 1, shift) >= POWER:
            return number
    raise ValueError(f"A difference of {abs(p - q):.3g} takes more than 10,000 seeds: expected a larger one.")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("rates", nargs=2, type=float, help="two success rates in %%, such as 94.9 96.1")
    p, q = (rate / 100 for rate in arguments.parse_args().rates)
    if p == q or not (0 < p < 1 and 0 < q < 1):
        arguments.error(f"{100 * p:g} and {100 * q:g}: expected two different rates between 0 and 100.")
    alone = independent_share(p, q)
    print(f"Unpaired: {ceil(unpaired(p, q))} episodes for each policy.\n")
    print("| solved by exactly one policy | pairs of episodes |\n|---|---|")
    for part in SHARES:
        print(f"| {part * alone:.1%} ({part:g} of independent) | {ceil(paired(p, q, part * alone))} |")
    print(f"\n| spread over training seeds, points | seeds of {EPISODES} episodes each |\n|---|---|")
    for spread in SEED_SPREADS:
        print(f"| {spread:g} | {seeds(p, q, alone, spread / 100)} |")


if __name__ == "__main__":
    main()
