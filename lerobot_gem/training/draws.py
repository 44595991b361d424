"""What a step of training draws at random: by the run's seed, the step and the process alone.

LeRobot seeds all processes alike, so that they would draw the same noise; and a run that goes on from a checkpoint draws the seed of
its DataLoader from the generator that it has restored, which moves all that is drawn from it afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mixed_seed(*numbers: int) -> int:
    """A seed of several numbers, none negative: neighbours' have nothing in common."""
    [mixed] = np.random.SeedSequence(numbers).generate_state(1, np.uint64).tolist()
    return mixed


@contextmanager
def drawing_by(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Let torch's generators draw by (seed, step, rank) within, and go on as if nothing had been drawn behind.

    They are torch's own, so that dropout of any library draws by it too, and that what is computed again in the backward pass
    (torch.utils.checkpoint) is drawn again.

    Args:
        seed: Of the run, not negative.
        step: Steps of training before this one, or the frame that is validated.
        rank: Of the process.
        device: Whose generator draws, beside the CPU's.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mixed_seed(seed, step, rank))
        yield


@contextmanager
def drawing_apart() -> Iterator[None]:
    """Let torch's generator move by one draw, however much is drawn within.

    LeRobot seeds the DataLoader's workers from this generator once the policy is built. So the workers augment pictures alike in two
    runs whose policies differ, in a depth generator for instance.
    """
    # Not seeded anew within: a policy asks torch there for the seed of its run.
    with torch.random.fork_rng(devices=[]):
        yield
    torch.empty((), dtype=torch.int64).random_()
