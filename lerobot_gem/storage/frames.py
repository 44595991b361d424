"""Frames of a LeRobotDataset with depth, in metres, for the commands that read them without training a policy."""

from collections.abc import Sequence
from typing import Any

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.collate import lerobot_collate_fn
from torch.utils.data import DataLoader, Subset

from lerobot_gem.storage.opening import DatasetOptions, open_dataset


def open_depth_dataset(options: DatasetOptions) -> LeRobotDataset:
    """Open a dataset whose depth is read in metres.

    Raises:
        FileNotFoundError: `root` holds no dataset.
        ValueError: It is of an older format, or has no depth camera, or not all of the episodes.
    """
    dataset = open_dataset(options, depth_output_unit="m")
    if not dataset.meta.depth_keys:
        raise ValueError(
            f"No depth camera in {options.repo_id!r}: expected image features flagged is_depth_map, beside "
            f"{dataset.meta.camera_keys}. Record depth, or label the data (lerobot-gem-label-depth)."
        )
    return dataset


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
