"""Renaming features: LeRobot reads the copy, and nothing but names has changed."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.storage.output_folder import OutputDataset
from lerobot_gem.storage.renaming import RenameConfig, rename_features

NAMES = {
    "image": "observation.images.image",
    "clip": "observation.images.clip",
    "state": "observation.state",
    "actions": "action",
}


@pytest.fixture(scope="module")
def openpi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys as openpi writes them, one camera as images and one as video."""
    root, random = tmp_path_factory.mktemp("renaming") / "openpi", np.random.default_rng(0)
    image = {"dtype": "image", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    features = {"image": image, "clip": {**image, "dtype": "video"}}
    features |= {name: {"dtype": "float32", "shape": (3,), "names": None} for name in ("state", "actions")}
    dataset = LeRobotDataset.create("local/openpi", root=root, fps=10, features=features, use_videos=True)
    for _ in range(2):
        for _ in range(4):
            frame = {name: random.integers(0, 255, (64, 64, 3), np.uint8) for name in ("image", "clip")}
            frame |= {name: random.uniform(-1, 1, 3).astype("float32") for name in ("state", "actions")}
            dataset.add_frame({**frame, "task": "pick"})
        dataset.save_episode()
    dataset.finalize()
    return root


def config(openpi: Path, output: Path, names: dict[str, str]) -> RenameConfig:
    return RenameConfig(DatasetOptions("local/openpi", openpi), OutputDataset(output), names)


def test_lerobot_reads_the_copy(openpi: Path, tmp_path: Path) -> None:
    rename_features(config(openpi, tmp_path / "set", NAMES))
    before, after = (LeRobotDataset("local/x", root=root) for root in (openpi, tmp_path / "set"))
    assert after.meta.features == {
        NAMES.get(name, name): feature for name, feature in before.meta.features.items()
    }
    assert after.meta.stats.keys() == {NAMES.get(name, name) for name in before.meta.stats}
    assert set(after.meta.camera_keys) == {"observation.images.image", "observation.images.clip"}
    assert not any(name in column.split("/") for name in NAMES for column in after.meta.episodes.column_names)
    for index in (0, 5):
        one, other = before[index], after[index]
        assert other.keys() == {NAMES.get(name, name) for name in one}
        for name, value in one.items():
            assert np.array_equal(value, other[NAMES.get(name, name)]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"picture": "image"}, r"no \['picture'\].*expected some of \['action"),
        ({"state": "actions"}, r"\['actions'\] would be the name of two features"),
    ],
)
def test_wrong_names(openpi: Path, tmp_path: Path, names: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rename_features(config(openpi, tmp_path / "set", names))
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="--overwrite=true"):
        rename_features(config(openpi, openpi, NAMES))
