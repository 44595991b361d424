"""`lerobot-gem-so101-demos`: what is asked for, and the dataset that it writes."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lerobot_gem.data.so101_demos import collecting
from lerobot_gem.data.so101_demos.collecting import SO101DemosConfig, collect, dataset_features
from lerobot_gem.storage.output_folder import OutputDataset


def config(root: Path, **options) -> SO101DemosConfig:
    return SO101DemosConfig(output=OutputDataset(root), fps=5, image_size=32, **{"episodes": 1, **options})


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"seed": -1}, {"action_noise": -0.1}])
def test_wrong_values_are_named(tmp_path: Path, wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        SO101DemosConfig(output=OutputDataset(tmp_path), **wrong)


def test_an_expert_that_always_fails_ends_the_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(collecting, "require_so101", lambda: None)
    monkeypatch.setattr(collecting, "_scene", lambda *settings: None)
    monkeypatch.setattr(collecting, "demonstrate", lambda *attempt: None)
    with pytest.raises(
        ValueError, match="failed 24 times while 12 successes were wanted, with action_noise=0.04"
    ):
        collect(config(tmp_path / "data", episodes=12))


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
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(FileExistsError, match="--overwrite=true"):
        collect(config(tmp_path / "data"))


@pytest.mark.slow
def test_depth_may_be_left_out():
    assert not any(key.endswith("_depth") for key in dataset_features(32, depth=False))


@pytest.mark.slow
def test_a_run_that_was_interrupted_and_two_processes_write_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    collect(config(tmp_path / "one", episodes=3))
    # As the command, since workers that are forked from a process which has drawn wait for its threads.
    command = [sys.executable, "-m", "lerobot_gem.scripts.so101_demos", f"--output.root={tmp_path / 'two'}"]
    command += ["--num_workers=2", "--fps=5", "--image_size=32", "--episodes=3"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    demonstrate = collecting.demonstrate

    def interrupted(scene, settings, attempt):
        if attempt == 1:
            raise KeyboardInterrupt
        return demonstrate(scene, settings, attempt)

    monkeypatch.setattr(collecting, "demonstrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(config(tmp_path / "three", episodes=3))
    with pytest.raises(FileExistsError, match="unfinished collection"):
        collect(config(tmp_path / "three", episodes=3))
    monkeypatch.setattr(collecting, "demonstrate", demonstrate)
    collect(config(tmp_path / "three", episodes=3, resume=True))

    [files, *others] = [sorted((tmp_path / name).rglob("*.parquet")) for name in ("one", "two", "three")]
    assert files
    for name, found in zip(("two", "three"), others, strict=True):
        assert [path.relative_to(tmp_path / name) for path in found] == [
            path.relative_to(tmp_path / "one") for path in files
        ]
        for one, other in zip(files, found, strict=True):
            assert pq.read_table(one).equals(pq.read_table(other))
