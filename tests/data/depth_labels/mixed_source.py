"""A small dataset with one camera of either storage, over several files, whose colours hold depth (pixel_depth.py)."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.storage.language_columns import row
from tests.conftest import add_language_rows

FRONT, WRIST = "observation.images.front", "observation.images.wrist"  # a video, images
SIZES = {FRONT: (64, 96), WRIST: (48, 40)}
LENGTHS = (12, 1, 5, 9)
FPS = 10


def write_mixed_source(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """Record episodes of the given lengths, and give them language rows."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ["height", "width", "channels"]
    dataset = LeRobotDataset.create(
        "local/mixed",
        fps=FPS,
        root=root,
        features={
            FRONT: {"dtype": "video", "shape": (*SIZES[FRONT], 3), "names": names},
            WRIST: {"dtype": "image", "shape": (*SIZES[WRIST], 3), "names": names},
            "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
            "action": {"dtype": "float32", "shape": (2,), "names": None},
        },
        data_files_size_in_mb=0.025,
        video_files_size_in_mb=0.0025,
    )
    random = np.random.default_rng(0)
    for episode, length in enumerate(lengths):
        for _ in range(length):
            vectors = {key: random.random(2, dtype=np.float32) for key in ("observation.state", "action")}
            images = {key: _picture(random, *size) for key, size in SIZES.items()}
            dataset.add_frame({**images, **vectors, "task": f"task {episode % 2}"})
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    rows = {0: [row("user", "Where?", "vqa", FRONT), row("assistant", "There.", "vqa", FRONT)]}
    return add_language_rows(root, [row("assistant", "Reach.", "subtask", timestamp=0.0)], rows)


def _picture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth, so that a lossy video keeps it; red, the coarse byte of depth, stands for 1 to 9 m."""
    waves = [np.sin(np.linspace(*random.uniform(0, 6, 2), side)) for side in (height, width)]
    value = 0.5 + 0.5 * np.outer(*waves)
    scales = np.array([30, 200, 200]) * random.uniform(0.5, 1, 3)
    return (value[..., None] * scales + [4, 20, 30]).astype(np.uint8)


def pixels_as_millimetres(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """What `PixelDepth` predicts: (3, H, W) to (H, W)."""
    return image[0].astype(np.uint16) * 256 + image[1]


def tree(root: Path) -> dict[str, str]:
    """Every file of a folder -> hash of its content."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
