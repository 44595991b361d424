"""What is measured of images and depth maps, against values that were put there."""

import pickle
from pathlib import Path

import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.check.cameras import CameraReader, _Distances
from lerobot_gem.data.check.stage_checks import FrameErrors
from lerobot_gem.policies.base_options import DepthSupervision
from tests.conftest import CAMERAS

FRONT, WRIST = CAMERAS
DEPTH = f"{FRONT}_depth"


@pytest.fixture
def reader(depth_dataset_root: Path) -> CameraReader:
    dataset = LeRobotDataset("local/noise", root=depth_dataset_root)
    return CameraReader(dataset, DepthSupervision({FRONT: DEPTH}, "mm", "spectral", 128))


def read(reader: CameraReader, position: int):
    [item] = reader.read([position], FrameErrors())
    return item


def test_depth_is_measured_over_valid_pixels_in_metres(reader):
    item = read(reader, 0)
    item[DEPTH] = torch.full((1, 64, 64), 2000.0)
    item[DEPTH][0, :16] = 500.0
    item[DEPTH][0, 16:32] = torch.tensor([0.0, 10.0, 12_000.0, float("nan")]).repeat(16)
    item[f"{WRIST}_depth"] = torch.zeros(1, 64, 64)
    reader.measure(item)
    front, wrist = reader.depth()
    assert front.distances == pytest.approx((0.5, 2.0, 2.0))
    assert (front.invalid, front.empty, front.camera) == (0.25, 0, FRONT)
    assert (wrist.distances, wrist.invalid, wrist.empty, wrist.camera) == (None, 1, 1, None)


def test_of_each_depth_map_a_thousand_distances_are_kept_and_sent():
    distances = _Distances()
    distances.add(torch.linspace(1, 3, 250_000).reshape(1, 500, 500))
    assert len(pickle.dumps(distances)) < 10_000
    assert distances.range() == pytest.approx((1, 2, 3), abs=0.01)


def test_frames_of_a_single_colour_are_counted(reader):
    for position in range(4):
        item = read(reader, position)
        if position == 2:
            item[WRIST] = torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(3, 64, 64)
        reader.measure(item)
    front, wrist = reader.cameras()
    assert (front.one_colour, wrist.one_colour) == (0, 0.25)
    assert (front.depth, wrist.depth) == (DEPTH, None)


def test_a_shown_frame_has_the_depth_that_is_learned(reader):
    from lerobot_gem.processing.depth_target import depth_target

    item = read(reader, 3)
    shown = reader.show(item, [])
    assert (shown.index, shown.episode, shown.task) == (3, 0, item["task"])
    front, wrist = shown.views
    learned = depth_target(item[DEPTH][None] / 1000, colormap="spectral", max_side=128).pictures[0]
    painted = torch.from_numpy(front.depth).movedim(-1, 0) / 127.5 - 1
    assert torch.allclose(painted, learned, atol=1 / 127)
    assert front.invalid == pytest.approx(0.1, abs=0.02)
    assert wrist.depth is None
