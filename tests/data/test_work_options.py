"""What decides what a command writes, and what only says how it runs."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from lerobot_gem.data.work_options import WorkOptions


@dataclass(kw_only=True)
class _Options(WorkOptions):
    output: Path = Path("set")
    num_workers: int = 1
    seed: int = 0
    episodes: int = 5


def test_where_and_how_it_runs_decides_nothing():
    options = _Options(executor="ray", tasks=4, resume=True, num_workers=3, seed=7)
    assert options.deciding() == {"seed": 7, "episodes": 5}
    assert options.deciding("episodes") == {"seed": 7}


def test_going_on_and_starting_again_contradict_each_other():
    _Options(resume=True).check_work()
    with pytest.raises(ValueError, match="resume and overwrite contradict each other"):
        _Options(resume=True, overwrite=True).check_work()
    with pytest.raises(ValueError, match="executor=ray without tasks"):
        _Options(executor="ray").check_work()
