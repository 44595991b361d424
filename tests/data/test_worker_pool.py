"""Work in order, by any number of processes."""

import os
from collections.abc import Iterator

import pytest

from lerobot_gem.data.worker_pool import map_in_order, worker_pool


def square(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_order_and_items_are_taken_as_needed(num_workers: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    with worker_pool(num_workers) as pool:
        results = map_in_order(pool, square, items(), ahead=4)
        first, process = next(results)
        assert first == 0 and (process == os.getpid()) == (num_workers == 1)
        assert len(taken) <= 4
        assert [number for number, _ in results] == [n**2 for n in range(1, 20)]
