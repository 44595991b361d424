"""Worker processes that take pieces of work in order, and end with the process that started them."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def worker_pool(num_workers: int) -> Iterator[Executor | None]:
    """Worker processes, already running; None for one worker, which is this process.

    Forked on Linux, since importing LeRobot costs each spawned one 10 to 20 CPU-seconds: enter before anything starts a
    thread (a progress bar does).
    """
    if num_workers == 1:
        yield None
        return
    method = "fork" if sys.platform == "linux" else "spawn"
    pool = ProcessPoolExecutor(
        num_workers, mp_context=get_context(method), initializer=_end_with_parent, initargs=(os.getpid(),)
    )
    try:
        pool.submit(os.getpid).result()
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def map_in_order[Item, Result](
    pool: Executor | None, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Results of `function` for each item, in the items' order.

    Not more than `ahead` items are taken in advance, so that a long stream of them needs little memory.
    """
    if pool is None:
        yield from map(function, items)
        return
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _end_with_parent(parent: int) -> None:
    """Watch the main process from a worker: one that was killed can't tell its workers, which would wait forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
