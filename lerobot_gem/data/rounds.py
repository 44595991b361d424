"""Attempts that may fail, in rounds: as many as are wanted, then as many more as failed, and so on.

So no attempt is made that may not be needed, and which ones are made does not depend on how many tasks share the work.
"""

from collections.abc import Callable

# Rounds that all tasks share (data/executors.py). Of attempts that fail every tenth time, one in ten thousand is left to the finish.
SHARED_ROUNDS = 4


def attempts_of_round(
    number: int,
    wanted: int,
    succeeded: Callable[[int], bool],
    give_up_if_hopeless: Callable[[int], None],
    available: int | None = None,
) -> range:
    """The numbers of a round's attempts; none when there are enough successes.

    Args:
        number: Of the round, from 0; all before it are over.
        wanted: Successes.
        succeeded: Tells of an attempt that is over.
        give_up_if_hopeless: Raises an error if so many failures are too many.
        available: Attempts that can be made; None for any number.
    """

    def bounded(stop: int) -> int:
        return stop if available is None else min(stop, available)

    start, stop = 0, bounded(wanted)
    for _ in range(number):
        failures = sum(not succeeded(one) for one in range(stop))
        give_up_if_hopeless(failures)
        start, stop = stop, bounded(wanted + failures)
    return range(start, stop)


def share(attempts: int, rank: int, tasks: int) -> slice:
    """A task's share of a round's attempts: neighbours, since they have more in common than others."""
    return slice(attempts * rank // tasks, attempts * (rank + 1) // tasks)
