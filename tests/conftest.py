"""Shared fixtures: a small LeRobot data set with LIBERO's keys, and policies on it."""

import os
from pathlib import Path

# Before LeRobot and huggingface_hub are imported: no test may reach the Hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import lerobot_gem  # noqa: E402, F401

torch.set_num_threads(2)

CAMERAS = ("observation.images.image", "observation.images.image2")
STATE_DIM = 8
ACTION_DIM = 7
EPISODES = 3
FRAMES = 10
TASKS = ("pick up the milk and place it in the basket", "stack the red cube")


def write_data_set(root: Path, *, size: int = 64, state_dim: int = STATE_DIM, action_dim: int = ACTION_DIM):
    """Write a data set of seeded noise with two cameras, a state, actions and two tasks."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = {"dtype": "image", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        repo_id="local/noise",
        root=root,
        fps=5,
        use_videos=False,
        features={
            **dict.fromkeys(CAMERAS, image),
            "observation.state": {"dtype": "float32", "shape": (state_dim,), "names": None},
            "action": {"dtype": "float32", "shape": (action_dim,), "names": None},
        },
    )
    random = np.random.default_rng(0)
    for episode in range(EPISODES):
        for _ in range(FRAMES):
            dataset.add_frame(
                {
                    **{
                        camera: random.integers(0, 255, (size, size, 3), dtype=np.uint8) for camera in CAMERAS
                    },
                    "observation.state": random.normal(size=state_dim).astype(np.float32),
                    "action": random.uniform(-1, 1, action_dim).astype(np.float32),
                    "task": TASKS[episode % len(TASKS)],
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small data set; tests must not change it."""
    return write_data_set(tmp_path_factory.mktemp("data") / "noise")


@pytest.fixture
def make_policy(data_set: Path):
    """A function that builds (policy, preprocessor, postprocessor) for the small data set as lerobot-train does."""

    def build(**overrides):
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
        from lerobot.policies.factory import make_policy, make_pre_post_processors

        from lerobot_gem.configuration_gem_vla import GemVLAConfig

        config = GemVLAConfig(
            **{"preset": "tiny", "device": "cpu", "dtype": "float32", "chunk_size": 4, **overrides}
        )
        meta = LeRobotDatasetMetadata("local/noise", root=data_set)
        torch.manual_seed(0)
        policy = make_policy(config, ds_meta=meta)
        return policy, *make_pre_post_processors(config, dataset_stats=meta.stats)

    return build


@pytest.fixture
def batch(data_set: Path):
    """A raw training batch of four frames; the last reaches past the end of its episode (chunk_size 4)."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(
        "local/noise", root=data_set, delta_timestamps={"action": [i / 5 for i in range(4)]}
    )
    return torch.utils.data.default_collate([dataset[i] for i in (0, 3, FRAMES, 2 * FRAMES - 2)])
