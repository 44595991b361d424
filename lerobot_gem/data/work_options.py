"""Options of commands that keep finished pieces on disk, so that they can go on after an interruption."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from lerobot_gem.data.executors import ExecutorOptions


@dataclass(kw_only=True)
class WorkOptions(ExecutorOptions):
    """Where the work runs, and what becomes of an earlier run.

    Attributes:
        resume: Go on with an interrupted run of the same settings.
        overwrite: Replace the dataset at `output.root`, and an interrupted run.
    """

    resume: bool = False
    overwrite: bool = False

    def check_work(self) -> None:
        """Raise a ValueError for options that do not fit together."""
        self.check_executor()
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite contradict each other: choose one.")

    def deciding(self, *others: str) -> dict[str, Any]:
        """Values of the fields that decide what is written: all but where, how, and `others`."""
        left_out = {"output", "num_workers", *others} | {one.name for one in fields(WorkOptions)}
        return {name: value for name, value in asdict(self).items() if name not in left_out}
