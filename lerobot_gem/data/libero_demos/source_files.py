"""LIBERO's own demonstrations: HDF5 files of recorded simulator states, one for each task.

The layout is robomimic's, as LIBERO's `create_dataset.py` writes it: `data` with an attribute `env_args`, and for
each demonstration a group `data/demo_<number>` with the datasets `states` (T, S) and `actions` (T, 7), and the attribute
`model_file`, the model's XML. The state of a row is the one before its action. The file's `obs` are those after it, and
are not read: images are drawn anew, with depth.

What was regenerated from these files for OpenVLA (`*_no_noops`) has no `model_file`, hence not the place of fixtures.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.simulation.scene import ACTION_DIM

# An action's length without the gripper below which it is none (OpenVLA, `regenerate_libero_dataset.py`, `is_noop`).
_NO_ACTION = 1e-4
_GROUP = re.compile(r"demo_(\d+)")


@dataclass(frozen=True)
class SourceDemonstration:
    """A recorded demonstration of T frames.

    Attributes:
        name: Of its file and group, for messages.
        states: (T, S) simulator states: time, joint positions and velocities.
        actions: (T, 7) what was done in each of them, in LIBERO's convention, which is LeRobot's.
        model: The XML of the model that it was recorded with.
    """

    name: str
    states: NDArray[np.float64]
    actions: NDArray[np.float32]
    model: str


def source_file(source: Path, suite: str, task: str) -> Path:
    """Where LIBERO puts the demonstrations of a task: in the folder of its suite or the folder above.

    Args:
        source: The folder.
        suite: LIBERO suite.
        task: LIBERO's name of the task.

    Raises:
        FileNotFoundError: There is no such file.
    """
    name = f"{task}_demo.hdf5"
    for file in (source / name, source / suite / name):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"There is no {name} in {source} or {source / suite}: --source is the folder of LIBERO's HDF5 files of {suite}. "
        "--task_ids chooses tasks."
    )


def count_demonstrations(file: Path, fps: int) -> int:
    """How many demonstrations a file holds.

    Args:
        file: The file.
        fps: Frames per second that are wanted.

    Raises:
        ValueError: It has no demonstrations, or other frames per second.
    """
    with _opened(file) as data:
        recorded = _control_frequency(data)
        if recorded not in (None, fps):
            raise ValueError(
                f"{file} was recorded at {recorded} Hz, but fps is {fps}: pass --fps={recorded}."
            )
        return len(_groups(data))


def read_demonstration(file: Path, number: int) -> SourceDemonstration:
    """A demonstration of a file.

    Args:
        file: The file.
        number: Its place in the order of the groups' numbers, from 0.

    Raises:
        ValueError: What LIBERO's files have is missing.
    """
    with _opened(file) as data:
        name = _groups(data)[number]
        group, label = data[name], f"{file}, {name}"
        missing = [key for key in ("states", "actions") if key not in group]
        missing += [key for key in ("model_file",) if key not in group.attrs]
        if missing:
            raise ValueError(
                f"{label} has no {', '.join(missing)}: expected a file as LIBERO publishes it, not one that was made from it."
            )
        states = np.asarray(group["states"], np.float64)
        actions = np.asarray(group["actions"], np.float32)
        if states.ndim != 2 or actions.shape != (len(states), ACTION_DIM):
            raise ValueError(
                f"{label} has states of shape {states.shape} and actions of shape {actions.shape}: expected (T, S) and "
                f"(T, {ACTION_DIM})."
            )
        model = group.attrs["model_file"]
        return SourceDemonstration(
            label, states, actions, model.decode() if isinstance(model, bytes) else model
        )


def moving_frames(actions: Iterable[NDArray[np.floating]]) -> list[int]:
    """The frames that are left when those in which nothing is done are dropped, as OpenVLA publishes LIBERO.

    Nothing is done where the action is near zero and the gripper's part the same as in the last frame that was kept.

    Args:
        actions: (T, 7).
    """
    kept: list[int] = []
    gripper: float | None = None
    for index, action in enumerate(actions):
        if np.linalg.norm(action[:-1]) < _NO_ACTION and gripper in (None, action[-1]):
            continue
        kept.append(index)
        gripper = action[-1]
    return kept


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The group `data` of a file.

    Raises:
        ValueError: It can't be read, or has none.
    """
    import h5py  # part of the `libero` extra

    try:
        stream = h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file} can't be read as HDF5 ({error}): download it again.") from error
    with stream:
        if "data" not in stream or not _groups(stream["data"]):
            raise ValueError(
                f"{file} has no demonstrations: expected groups data/demo_0, data/demo_1 and so on."
            )
        yield stream["data"]


def _groups(data: Any) -> list[str]:
    return sorted(filter(_GROUP.fullmatch, data), key=lambda name: int(name.removeprefix("demo_")))


def _control_frequency(data: Any) -> int | None:
    """Control steps per second of the recording, if the file says so."""
    settings = json.loads(data.attrs.get("env_args", "{}"))
    return settings.get("env_kwargs", {}).get("control_freq")
