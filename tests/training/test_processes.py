"""Who trains beside this process."""

import pytest

from lerobot_gem.training.processes import is_sharded, process_count, process_rank


def test_one_process_is_the_first_of_one():
    assert (process_rank(), process_count()) == (0, 1)


@pytest.mark.parametrize(("flag", "expected"), [("true", True), ("false", False)])
def test_accelerate_says_whether_it_shards(monkeypatch, flag, expected):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", flag)
    assert is_sharded() is expected
