"""Attempts in rounds: as many successes as are wanted, and no attempt that may not be needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lerobot_gem.data.rounds import Collection, CollectionOptions, attempts_of_round
from lerobot_gem.storage.output_folder import OutputDataset


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


@dataclass(kw_only=True)
class _Options(CollectionOptions):
    output: OutputDataset
    wanted: int
    num_workers: int = 1

    def content(self) -> dict[str, Any]:
        return self.deciding("wanted")


@dataclass(frozen=True)
class _Numbers(Collection[_Options, int, int]):
    """Every fifth attempt fails; without `room` there is none for the dataset."""

    room: bool = True

    def attempts(self, number: int) -> range:
        def give_up(failures: int) -> None:
            if failures > self.config.wanted // 2:
                raise RuntimeError(f"{failures} failures")

        return attempts_of_round(number, self.config.wanted, self._succeeded, give_up)

    def _succeeded(self, attempt: int) -> bool:
        file = self.staging / f"{attempt}.txt"
        return file.exists() and file.read_text() == "good"

    def make(self, attempts: Sequence[int], is_alone: bool) -> None:
        for one in attempts:
            (self.staging / f"{one}.txt").write_text("bad" if one % 5 == 0 else "good")

    def write(self) -> int:
        if not self.room:
            raise OSError("no room")
        return sum(map(self._succeeded, range(1000)))


def _options(root: Path, wanted: int, tasks: int | None, resume: bool = False) -> _Options:
    return _Options(output=OutputDataset(root), wanted=wanted, tasks=tasks, resume=resume)


@pytest.mark.parametrize(("tasks", "before"), [(None, 20), (4, 20), (4, 2)])
def test_a_run_that_goes_on_may_want_more(tmp_path: Path, tasks: int | None, before: int):
    """What is noted as complete of a round is complete of the smaller one."""
    root = tmp_path / "set"
    with pytest.raises(OSError, match="no room"):
        _Numbers(_options(root, before, tasks), room=False).run()
    assert _Numbers(_options(root, 60, tasks, resume=True)).run() == 60


def test_complete_tasks_are_skipped_where_as_much_is_wanted(tmp_path: Path):
    root, made = tmp_path / "set", []

    class Counted(_Numbers):
        def share_round(self, number: int, rank: int, tasks: int) -> None:
            made.append((number, rank))
            super().share_round(number, rank, tasks)

    with pytest.raises(OSError, match="no room"):
        Counted(_options(root, 20, 2), room=False).run()
    assert len(made) == len(set(made)) == 8
    made.clear()
    assert Counted(_options(root, 20, 2, resume=True)).run() == 20
    assert not made
