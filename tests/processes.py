"""Several processes of one training run, for tests."""

import pickle
import socket
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import cloudpickle
import torch.multiprocessing as multiprocessing

# Imported once, by the process that the others are forked from.
_IMPORTED = ["lerobot_gem.policies.gem.modeling_gem", "lerobot_gem.policies.gem_vla.modeling_gem_vla"]


def run_processes(train: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """Run `train(rank, port, *arguments)` in as many processes, with a free port to meet at.

    They are not forked from this process: autograd's threads, which a test before may have started, don't survive that.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # As bytes: each tensor takes a file descriptor otherwise, and there are more than may be sent.
    stored = cloudpickle.dumps(arguments)  # pickle can't do the hooks of gradient checkpointing
    forkserver.set_forkserver_preload(_IMPORTED)
    multiprocessing.start_processes(_run, (port, train, stored), nprocs=count, start_method="forkserver")


def _run(rank: int, port: int, train: Callable[..., None], stored: bytes) -> None:
    train(rank, port, *pickle.loads(stored))
