"""Attempts in rounds: as many successes as are wanted, and no attempt that may not be needed."""

import pytest

from lerobot_gem.data.rounds import attempts_of_round


def collected(wanted: int, fails: set[int], available: int | None = None) -> list[range]:
    """All rounds, in which the attempts `fails` fail."""
    rounds: list[range] = []
    made: set[int] = set()
    while True:

        def succeeded(one: int) -> bool:
            assert one in made, "only attempts that are over can be asked about"
            return one not in fails

        attempts = attempts_of_round(len(rounds), wanted, succeeded, lambda failures: None, available)
        if not attempts:
            return rounds
        rounds.append(attempts)
        made.update(attempts)


def test_each_round_makes_up_for_the_failures_of_those_before():
    assert collected(5, {1, 3, 5}) == [range(0, 5), range(5, 7), range(7, 8)]
    assert collected(5, set()) == [range(0, 5)]
    assert collected(0, set()) == []


def test_no_more_than_there_are():
    assert collected(5, {1, 3}, available=6) == [range(0, 5), range(5, 6)]
    assert collected(5, set(), available=3) == [range(0, 3)]


def test_too_many_failures_end_it():
    def give_up(failures: int) -> None:
        raise RuntimeError(f"{failures} failures")

    with pytest.raises(RuntimeError, match="^2 failures$"):
        attempts_of_round(1, 5, lambda one: one > 1, give_up)
