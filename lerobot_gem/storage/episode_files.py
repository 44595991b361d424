"""Which files of a dataset hold which episodes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def episode_files(
    meta: Any, camera: str | None = None, episodes: Sequence[int] | None = None
) -> Iterator[tuple[Path, NDArray[np.int64]]]:
    """The data files of a dataset, or the video files of a camera, each with the indices of its episodes.

    Columns of meta/episodes are read: of a hundred thousand episodes, LeRobot's own look-up of each would take a minute.

    Args:
        meta: `LeRobotDatasetMetadata`, whose counts agree.
        camera: Whose videos; None for the data files.
        episodes: Indices of the episodes that are asked about; None is all.

    Yields:
        Path from the dataset's folder, and episodes in order.
    """
    template, columns = (meta.data_path, "data") if camera is None else (meta.video_path, f"videos/{camera}")
    places = np.stack([np.asarray(meta.episodes[f"{columns}/{name}_index"]) for name in ("chunk", "file")])
    indices = np.arange(places.shape[1]) if episodes is None else np.unique(episodes)
    files, of_episode, counts = np.unique(places[:, indices], axis=1, return_inverse=True, return_counts=True)
    by_file = np.split(indices[np.argsort(of_episode.ravel(), kind="stable")], np.cumsum(counts)[:-1])
    for (chunk, file), held in zip(files.T, by_file, strict=True):
        yield Path(template.format(video_key=camera, chunk_index=chunk, file_index=file)), held
