"""An episode on disk, before there is a dataset: what was recorded comes back as LeRobot takes it."""

from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.storage.images import image_features
from lerobot_gem.storage.recorded_episodes import episode_length, has_episode, read_episode, write_episode

IMAGE, DEPTH, STATE = "observation.images.image", "observation.images.image_depth", "observation.state"


def test_an_episode_becomes_one_of_a_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        {
            IMAGE: rng.integers(0, 255, (8, 8, 3), dtype=np.uint8),
            DEPTH: rng.random((8, 8, 1)).astype(np.float32),
            STATE: rng.random(8).astype(np.float32),
            "action": rng.random(7).astype(np.float32),
        }
        for _ in range(12)
    ]
    folder = tmp_path / "episode"
    folder.mkdir()
    assert not has_episode(folder)
    write_episode(frames, folder)
    assert has_episode(folder) and episode_length(folder) == len(frames)

    vectors = {
        key: {"dtype": "float32", "shape": frames[0][key].shape, "names": None} for key in (STATE, "action")
    }
    dataset = LeRobotDataset.create(
        "local/one",
        fps=5,
        features=image_features(["image"], 8, 8, depth=True) | vectors,
        root=tmp_path / "dataset",
        use_videos=False,
    )
    for _ in range(2):
        dataset.save_episode(episode_data=read_episode(folder, "lift it", dataset))
    dataset.finalize()
    found = LeRobotDataset("local/one", root=tmp_path / "dataset")
    assert len(found) == 2 * len(frames)
    for index, frame in enumerate(frames):
        item = found[len(frames) + index]
        assert item["task"] == "lift it" and item["episode_index"] == 1
        assert item["timestamp"].item() == np.float32(index / 5)
        for key in (STATE, "action"):
            np.testing.assert_array_equal(item[key], frame[key])
        np.testing.assert_allclose(item[IMAGE].movedim(0, -1) * 255, frame[IMAGE], atol=1e-3)
        np.testing.assert_allclose(item[DEPTH].movedim(0, -1) / 1000, frame[DEPTH], atol=1e-3)
