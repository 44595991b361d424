"""Statistics that are not finite, and the frames at fault."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.configs import NormalizationMode

from lerobot_gem.storage.statistics import check_statistics
from tests.conftest import write_dataset

MODE = NormalizationMode.MEAN_STD


def test_statistics_that_are_not_finite_are_named_with_the_frames(tmp_path: Path):
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

    root = write_dataset(tmp_path / "data")
    meta = LeRobotDatasetMetadata("local/noise", root=root)
    check_statistics(meta, {"action": MODE})
    meta.stats["action"]["std"][1] = np.inf
    with pytest.raises(
        ValueError, match=r"std\[1\] = inf in meta/stats.json of 'local/noise'.*All frames are finite"
    ):
        check_statistics(meta, {"action": MODE, "observation.state": MODE})
    check_statistics(meta, {"action": NormalizationMode.MIN_MAX})  # which does not read it
