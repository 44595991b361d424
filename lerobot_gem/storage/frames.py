"""Frames of a LeRobotDataset, for the commands that read them without training a policy."""

from collections.abc import Sequence
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import decode_video_frames
from lerobot.utils.collate import lerobot_collate_fn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

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
    dataset: LeRobotDataset, positions: Sequence[int], *, batch_size: int
) -> DataLoader[dict[str, Any]]:
    """Batches of some frames in this order, collated as lerobot-train does.

    Args:
        dataset: Read from.
        positions: Of the frames in it.
        batch_size: Frames of a batch.
    """
    return DataLoader(
        Subset(dataset, positions),
        batch_size=batch_size,
        # torch's own can't collate language columns.
        collate_fn=lerobot_collate_fn,
    )


class CameraFrames(Dataset[dict[str, Tensor]]):
    """RGB frames of some cameras: others are not decoded, as `LeRobotDataset` would.

    An item is a batch, so that a video is opened once for it: use a `DataLoader` with `batch_size=None`, whose `sampler`
    gives the batches.

    Args:
        dataset: Read from; stays as it is.
        cameras: Features to read.
    """

    def __init__(self, dataset: LeRobotDataset, cameras: Sequence[str]) -> None:
        self._meta = dataset.meta
        self._tolerance = dataset.tolerance_s
        self._videos = [camera for camera in cameras if camera in dataset.meta.video_keys]
        self._images = [camera for camera in cameras if camera not in self._videos]
        self._table = dataset.hf_dataset.select_columns(["timestamp", *self._images])

    def __len__(self) -> int:
        return len(self._table)

    def frames_of(self, episode: int) -> range:
        """Indices of an episode's frames."""
        place = self._meta.episodes[episode]
        return range(place["dataset_from_index"], place["dataset_to_index"])

    def __getitem__(self, batch: tuple[int, Sequence[int]]) -> dict[str, Tensor]:
        """Read frames of one episode.

        Args:
            batch: The episode, and indices of some of its frames.

        Returns:
            Camera -> (B, 3, H, W) uint8.
        """
        episode, indices = batch
        rows = self._table[list(indices)]  # in the order of their indices, as `open_dataset` checks
        # LeRobot delivers stored images in [0, 1].
        frames = {
            camera: (torch.stack(rows[camera]) * 255).round().to(torch.uint8) for camera in self._images
        }
        for camera in self._videos:
            start = self._meta.episodes[episode][f"videos/{camera}/from_timestamp"]
            frames[camera] = decode_video_frames(
                self._meta.root / self._meta.get_video_file_path(episode, camera),
                [start + time for time in torch.stack(rows["timestamp"]).tolist()],
                self._tolerance,
                return_uint8=True,
            )
        return frames
