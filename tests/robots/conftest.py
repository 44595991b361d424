"""An emulated arm, a dataset that was recorded on it, and a policy for it."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.robots.feetech_bus import HIGHEST, LOWEST, MOTORS

PLUGIN = Path(__file__).parent / "plugin"
NAMES = [f"{motor}.pos" for motor in MOTORS]
TASK = "pick up the cube"
FPS = 10
SIZE = 64
# Of the recorded joints, in degrees; the servos reach 90 either way, and the gripper goes from 0 to 100.
LOW, HIGH = np.array([-40.0] * 5 + [10]), np.array([40.0] * 5 + [90])


def write_arm_dataset(
    root: Path,
    *,
    names: Sequence[str] = NAMES,
    tasks: Sequence[str] = (TASK,),
    cameras: Sequence[str] = ("front",),
    fps: int = FPS,
    episodes: int = 2,
) -> Path:
    """Episodes of an arm whose joints and goals are spread over LOW to HIGH; each has a data file of its own."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    picture = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    dataset = LeRobotDataset.create(
        repo_id="local/arm",
        root=root,
        fps=fps,
        use_videos=False,
        robot_type="so100_follower",
        features={
            **{f"observation.images.{camera}": picture for camera in cameras},
            "observation.state": vector,
            "action": vector,
        },
    )
    dataset.meta.update_chunk_settings(data_files_size_in_mb=1e-6)
    random = np.random.default_rng(0)
    for episode in range(episodes):
        for _ in range(20):
            frame = {
                f"observation.images.{camera}": random.integers(100, 140, (SIZE, SIZE, 3), dtype=np.uint8)
                for camera in cameras
            }
            for key in ("observation.state", "action"):
                frame[key] = random.uniform(LOW, HIGH).astype(np.float32)
            dataset.add_frame({**frame, "task": tasks[episode % len(tasks)]})
        dataset.save_episode()
    dataset.finalize()
    return root


def save_policy(root: Path, folder: Path, **overrides) -> Path:
    """A policy for the dataset in `root`, saved as lerobot-train saves it; its processor has seen a batch of each episode."""
    from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
    from tests.conftest import build_policy, read_batch

    options = {"preset": "tiny", "device": "cpu", "dtype": "float32", "chunk_size": 8, **overrides}
    policy, preprocess, postprocess = build_policy(GemVLAConfig(**options), root)
    batch = read_batch(root, (0, 20), chunk_size=options["chunk_size"])
    preprocess(batch)
    for part in (policy, preprocess, postprocess):
        part.save_pretrained(folder)
    train = {"dataset": {"repo_id": "local/arm", "root": str(root)}}
    (folder / "train_config.json").write_text(json.dumps(train))
    return folder


@pytest.fixture(scope="session")
def arm_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    return write_arm_dataset(tmp_path_factory.mktemp("arm") / "data")


@pytest.fixture(scope="session")
def arm_policy(arm_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained policy; tests must not change it."""
    return save_policy(arm_dataset, tmp_path_factory.mktemp("arm") / "policy")


def write_calibration(tmp_path: Path) -> Path:
    """Folder with the calibration of the arm `test`, as it is stored in the servos."""
    folder = tmp_path / "calibration"
    folder.mkdir()
    values = {
        motor: {"id": n, "drive_mode": 0, "homing_offset": 0, "range_min": LOWEST, "range_max": HIGHEST}
        for n, motor in enumerate(MOTORS, start=1)
    }
    (folder / "test.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return write_calibration(tmp_path)


def options_of_arm(calibration: Path) -> Callable[..., list[str]]:
    """A function that gives the options of an arm on a port."""

    def options(
        port: str, robot: str = "so101_follower", cameras: str = "{front: {type: pictures}}"
    ) -> list[str]:
        return [
            f"--robot.type={robot}",
            f"--robot.port={port}",
            "--robot.id=test",
            f"--robot.calibration_dir={calibration}",
            f"--robot.cameras={cameras}",
        ]

    return options


@pytest.fixture
def arm_options(calibration: Path) -> Callable[..., list[str]]:
    return options_of_arm(calibration)


@pytest.fixture
def with_camera_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands that are started find the camera of the tests."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
