"""LIBERO's HDF5 files: what is read, and what is refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from lerobot_gem.data.libero_demos.source_files import (
    count_demonstrations,
    moving_frames,
    read_demonstration,
    source_file,
)


def _write(file: Path, numbers: tuple[int, ...] = (0,), **change: object) -> Path:
    """A file whose demonstrations' states are their numbers."""
    with h5py.File(file, "w") as stream:
        data = stream.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        for number in numbers:
            group = data.create_group(f"demo_{number}")
            content = {"states": np.full((3, 5), number, np.float64), "actions": np.zeros((3, 7)), **change}
            for name, values in content.items():
                if values is not None and name != "model_file":
                    group[name] = values
            if "model_file" not in change:
                group.attrs["model_file"] = "<mujoco/>"
    return file


def test_demonstrations_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.hdf5", (10, 2, 0))
    assert count_demonstrations(file, 20) == 3
    for place, number in enumerate((0, 2, 10)):
        found = read_demonstration(file, place)
        assert found.name == f"{file}, demo_{number}" and found.model == "<mujoco/>"
        assert found.states.dtype == np.float64 and (found.states == number).all()
        assert found.actions.dtype == np.float32 and found.actions.shape == (3, 7)


def test_a_task_has_its_file_in_the_folder_of_its_suite_or_above(tmp_path: Path) -> None:
    (tmp_path / "libero_goal").mkdir()
    for file in (tmp_path / "push_demo.hdf5", tmp_path / "libero_goal" / "open_demo.hdf5"):
        file.touch()
        assert source_file(tmp_path, "libero_goal", file.name.removesuffix("_demo.hdf5")) == file
    with pytest.raises(
        FileNotFoundError, match=r"no lift_demo.hdf5 in .*--source is the folder .*libero_goal"
    ):
        source_file(tmp_path, "libero_goal", "lift")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_file": None}, "demo_0 has no model_file: expected a file as LIBERO publishes it"),
        ({"states": None}, "demo_0 has no states"),
        ({"actions": np.zeros((2, 7))}, r"states of shape \(3, 5\) and actions of shape \(2, 7\)"),
    ],
)
def test_what_is_no_demonstration_of_liberos(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_demonstration(_write(tmp_path / "a.hdf5", **change), 0)


def test_what_is_no_file_of_liberos(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("<html>")
    with pytest.raises(ValueError, match=r"text.hdf5 can't be read as HDF5 .*download it again"):
        count_demonstrations(tmp_path / "text.hdf5", 20)
    with pytest.raises(ValueError, match="has no demonstrations: expected groups data/demo_0"):
        count_demonstrations(_write(tmp_path / "none.hdf5", ()), 20)
    with pytest.raises(ValueError, match="was recorded at 20 Hz, but fps is 5: pass --fps=20"):
        count_demonstrations(_write(tmp_path / "a.hdf5"), 5)


def test_frames_in_which_nothing_is_done() -> None:
    """OpenVLA's rule: near zero, and the gripper as in the last frame that was kept."""
    still, move = [0.0] * 6, [0.0, 5e-5, 9e-5, 0.0, 0.0, 0.0]
    actions = [
        [*still, 1.0],  # at the beginning the gripper does not matter
        [*still, -1.0],
        [*move, -1.0],  # its length is above 1e-4
        [*still, -1.0],
        [*still, 1.0],  # the gripper closes
        [*still, 1.0],
        [9e-5, *still[1:], 1.0],
        [*still, -1.0],
    ]
    assert moving_frames(np.array(actions)) == [2, 4, 7]
