"""Frames as the commands read them, against LeRobot's own reader."""

import pickle
from pathlib import Path

import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import DataLoader

from lerobot_gem.storage import frames
from lerobot_gem.storage.frames import CameraFrames, open_depth_dataset, read_frames
from lerobot_gem.storage.opening import DatasetOptions, open_dataset
from tests.conftest import CAMERAS
from tests.data.depth_labels.mixed_source import FRONT, LENGTHS, WRIST, write_mixed_source


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_source(tmp_path_factory.mktemp("frames") / "mixed")


# -- depth in metres -----------------------------------------------------------------------------------------------------


def test_depth_is_read_in_metres(depth_dataset_root: Path) -> None:
    dataset = open_depth_dataset(DatasetOptions("local/noise", depth_dataset_root))
    millimetres = LeRobotDataset("local/noise", root=depth_dataset_root)
    key = f"{CAMERAS[0]}_depth"
    [batch] = read_frames(dataset, [4, 2], batch_size=2)
    for position, index in enumerate((4, 2)):
        torch.testing.assert_close(batch[key][position] * 1000, millimetres[index][key])
    assert batch["index"].tolist() == [4, 2]


def test_frames_are_read_in_batches_in_order(depth_dataset_root: Path) -> None:
    dataset = open_depth_dataset(DatasetOptions("local/noise", depth_dataset_root))
    batches = [batch["index"].tolist() for batch in read_frames(dataset, range(7), batch_size=3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_dataset_without_depth(dataset_root: Path) -> None:
    with pytest.raises(ValueError, match=r"No depth camera in 'local/noise': .*lerobot-gem-label-depth"):
        open_depth_dataset(DatasetOptions("local/noise", dataset_root))


# -- some cameras only ---------------------------------------------------------------------------------------------------


def test_frames_of_cameras_are_those_of_lerobots_reader(mixed: Path) -> None:
    dataset = open_dataset(DatasetOptions("local/mixed", mixed), return_uint8=True)
    reader = CameraFrames(dataset, [WRIST, FRONT])
    ranges = [reader.frames_of(episode) for episode in range(len(LENGTHS))]
    assert [len(indices) for indices in ranges] == list(LENGTHS) and len(reader) == sum(LENGTHS)
    for episode, indices in enumerate(ranges):
        batch = reader[episode, indices]
        for position, index in enumerate(indices):
            item = dataset[index]
            assert torch.equal(batch[FRONT][position], item[FRONT])
            assert torch.equal(batch[WRIST][position], (item[WRIST] * 255).round().to(torch.uint8))
            assert batch[FRONT].dtype == torch.uint8


def test_other_cameras_are_not_decoded(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(DatasetOptions("local/mixed", mixed))
    features, columns = dict(dataset.meta.features), dataset.hf_dataset.column_names
    monkeypatch.setattr(frames, "decode_video_frames", None)
    assert set(CameraFrames(dataset, [WRIST])[0, range(3)]) == {WRIST}
    monkeypatch.undo()
    reader = CameraFrames(dataset, [FRONT])
    assert set(reader[0, range(3)]) == {FRONT} and WRIST not in reader._table.column_names
    # The dataset is as it was.
    assert dataset.meta.features == features and dataset.hf_dataset.column_names == columns
    assert {FRONT, WRIST} <= set(dataset[0])


def test_a_loader_gives_the_batches_that_are_asked_for(mixed: Path) -> None:
    reader = CameraFrames(open_dataset(DatasetOptions("local/mixed", mixed)), [WRIST, FRONT])
    batches = [(0, range(0, 5)), (2, range(13, 15)), (0, range(5, 6))]
    loaded = list(DataLoader(reader, sampler=batches, batch_size=None))
    assert [len(batch[FRONT]) for batch in loaded] == [5, 2, 1]
    assert torch.equal(loaded[1][WRIST], reader[2, range(13, 15)][WRIST])
    again = pickle.loads(pickle.dumps(reader))  # as workers get it
    assert torch.equal(again[2, [14]][FRONT], loaded[1][FRONT][1:])
