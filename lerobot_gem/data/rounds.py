"""Collections of attempts that may fail, in rounds: as many as are wanted, then as many more as failed, and so on.

So no attempt is made that may not be needed, and which ones are made does not depend on how many tasks share the work. A finished
attempt is kept on disk at once, in a folder beside the dataset. When there are enough, the dataset is written from those files, and the
folder disappears.
"""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from lerobot_gem.data.executors import Phase, run_phases, share
from lerobot_gem.data.work_options import WorkOptions
from lerobot_gem.storage.output_folder import (
    OutputDataset,
    explained_full_disk,
)
from lerobot_gem.storage.unfinished_work import begun_or_resumed

# Rounds that all tasks share (data/executors.py). Of attempts that fail every tenth time, one in ten thousand is left to the finish.
_SHARED_ROUNDS = 4


class CollectionOptions(WorkOptions):
    """What the configuration of each collection says."""

    output: OutputDataset
    num_workers: int

    def content(self) -> dict[str, Any]:
        """Everything that decides what an attempt looks like, not how many there are: must agree between a run and its continuation."""
        raise NotImplementedError

    def amount(self) -> str:
        """Names everything else, which decides how many attempts there are."""
        others = self.deciding(*self.content())
        return hashlib.sha256(json.dumps(others, default=str).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Collection[Options: CollectionOptions, Attempt, Result](ABC):
    """The steps of a collection; each can be another process's, on another machine.

    Attributes:
        config: What to collect, and where to put it.
    """

    config: Options

    @abstractmethod
    def attempts(self, number: int) -> Sequence[Attempt]:
        """All attempts of a round.

        Args:
            number: Of the round, from 0; all before it are over.
        """

    @abstractmethod
    def make(self, attempts: Sequence[Attempt], is_alone: bool) -> None:
        """Make those attempts that are not there.

        Args:
            attempts: Of a round.
            is_alone: No other task shares it, so that progress may be shown.
        """

    @abstractmethod
    def write(self) -> Result:
        """Write the dataset."""

    @property
    def staging(self) -> Path:
        """The folder of finished attempts."""
        root = self.config.output.root
        return root.with_name(root.name + ".attempts")

    def run(self) -> Result | None:
        """Collect; None where Slurm goes on with it.

        Raises:
            FileExistsError: Something is at `output.root` (or unfinished beside it) and neither `resume` nor `overwrite` is set, or it
                is no dataset. Or another run collects there.
            ValueError: A continuation with other settings.
        """
        config = self.config
        phases = [
            Phase(
                f"round{number}",
                partial(self.share_round, number),
                count=partial(self.count, number),
                amount=config.amount(),
            )
            for number in range(_SHARED_ROUNDS)
        ]
        with begun_or_resumed(
            config, self.staging, config.content(), work="collection", decided_by="settings"
        ):
            return run_phases(config, self.staging, phases, self.finish, processes=config.num_workers)

    def count(self, number: int) -> int:
        """How many attempts a round has."""
        return len(self.attempts(number))

    def share_round(self, number: int, rank: int, tasks: int) -> None:
        """Make a task's share of a round's attempts."""
        attempts = self.attempts(number)
        with self.explained():
            self.make(attempts[share(len(attempts), rank, tasks)], is_alone=tasks == 1)

    def finish(self) -> Result:
        """Make what failed in all rounds, and write the dataset."""
        with self.explained():
            for number in count():
                attempts = self.attempts(number)
                if not attempts:
                    break
                self.make(attempts, is_alone=True)
            result = self.write()
        shutil.rmtree(self.staging)
        return result

    def explained(self) -> AbstractContextManager[None]:
        """Say which disk is full, and how to go on."""
        advice = f"Finished attempts are kept in {self.staging}: free some space and run the same command with --resume=true."
        return explained_full_disk(self.config.output.root, advice)


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
