"""`lerobot-gem-so101-demos`: what is asked for, and the dataset that it writes."""

from pathlib import Path

import pytest

from lerobot_gem.data.so101_demos.collecting import SO101DemosConfig, collect, dataset_features
from lerobot_gem.storage.output_folder import OutputDataset


def config(root: Path, **options) -> SO101DemosConfig:
    return SO101DemosConfig(OutputDataset(root), episodes=1, fps=5, image_size=32, **options)


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"seed": -1}, {"action_noise": -0.1}])
def test_wrong_values_are_named(tmp_path: Path, wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        SO101DemosConfig(OutputDataset(tmp_path), **wrong)


@pytest.mark.slow
def test_demonstrations_have_depth_states_of_the_real_arm_and_one_task(tmp_path: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    collect(config(tmp_path / "data"))
    dataset = LeRobotDataset("local/data", root=tmp_path / "data")
    assert dataset.meta.total_episodes == 1
    assert list(dataset.meta.tasks.index) == ["put the purple cube on the green disc"]
    assert dataset.meta.features["observation.state"]["names"][0] == "shoulder_pan.pos"
    frame = dataset[0]
    assert frame["observation.images.side_depth"].shape == (1, 32, 32)
    assert 200 < frame["observation.images.side_depth"].median() < 1500  # millimetres
    assert not (tmp_path / "data.writing").exists()
    with pytest.raises(FileExistsError, match="--overwrite=true"):
        collect(config(tmp_path / "data"))


@pytest.mark.slow
def test_depth_may_be_left_out():
    assert not any(key.endswith("_depth") for key in dataset_features(32, depth=False))
