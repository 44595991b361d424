"""Frames of a LeRobotDataset with depth, in metres, for the commands that read them without training a policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.collate import lerobot_collate_fn
from torch.utils.data import DataLoader, Subset

from lerobot_gem.storage.opening import require_current_format, require_episodes


@dataclass
class DepthDataConfig:
    """Where the depth comes from.

    Attributes:
        repo_id: LeRobot's name of the dataset.
        root: Its folder; None for LeRobot's own place.
        episodes: Indices of the episodes to use. None takes all.
    """

    repo_id: str
    root: Path | None = None
    episodes: list[int] | None = None


def open_depth_dataset(config: DepthDataConfig) -> LeRobotDataset:
    """Open a dataset whose depth is read in metres.

    Raises:
        FileNotFoundError: `root` holds no dataset.
        ValueError: It is of an older format, or has no depth camera, or not all of the episodes.
    """
    require_current_format(config.repo_id, config.root)
    meta = LeRobotDatasetMetadata(config.repo_id, root=config.root)
    if not meta.depth_keys:
        raise ValueError(
            f"No depth camera in {config.repo_id!r}: expected image features flagged is_depth_map, beside "
            f"{meta.camera_keys}. Record depth, or label the data (lerobot-gem-label-depth)."
        )
    require_episodes(meta, config.episodes)
    return LeRobotDataset(config.repo_id, root=config.root, episodes=config.episodes, depth_output_unit="m")


def read_frames(
    dataset: LeRobotDataset,
    positions: Sequence[int],
    *,
    batch_size: int,
    shuffle: bool = False,
    num_workers: int = 0,
) -> DataLoader[dict[str, Any]]:
    """Batches of some frames, collated as lerobot-train does.

    Args:
        dataset: Read from.
        positions: Of the frames in it.
        batch_size: Frames of a batch.
        shuffle: In random order.
        num_workers: Processes that read.
    """
    return DataLoader(
        Subset(dataset, positions),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=num_workers,
        # torch's own can't collate language columns.
        collate_fn=lerobot_collate_fn,
    )
