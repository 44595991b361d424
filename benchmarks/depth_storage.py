"""What depth labels cost: bytes and reading time, against the same frames' RGB.

Renders frames of LIBERO with their depth, records them with LeRobot as images and as videos, and adds the depth as
`lerobot-gem-label-depth` does (`--storage=camera`, and `image` beside a video): in metres, and as the pseudo-depth of a
relative model that knew the scene. Reading is
`LeRobotDataset.__getitem__` over all frames, CPU time of the process, with depth against without, in one run.

    python benchmarks/depth_storage.py --frames=32
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.depth_labels.depth_model import pseudo_depth, to_millimetres
from lerobot_gem.processing.depth_cameras import depth_key
from lerobot_gem.simulation.libero_setup import require_libero
from lerobot_gem.simulation.placements import apply_benchmark
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import make_scripted_policy
from lerobot_gem.storage.depth_columns import add_depth_features
from lerobot_gem.storage.depth_files import EpisodeDepthWriter

CAMERA, FPS = "observation.images.image", 10
LARGEST_SIZE, LARGEST_TIME = 1.5, 1.6
STORAGES = (("image", "image"), ("video", "video"), ("video", "image"))  # of RGB and of depth
ROUNDS = 3


def render(frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB (N, H, W, 3) and metres (N, H, W) of the beginning of a demonstration."""
    require_libero()
    scene = LiberoScene("libero_object", 0, FPS, height, width, True)
    apply_benchmark(scene, 0)
    policy, images, depths = make_scripted_policy(scene), [], []
    for _ in range(frames):
        action = policy.action()
        observation = scene.observation(True)
        images.append(observation[CAMERA])
        depths.append(observation[depth_key(CAMERA)][..., 0])
        scene.step(action)
    scene.close()
    return np.stack(images), np.stack(depths)


def record(root: Path, images: np.ndarray, storage: str) -> Path:
    """A dataset of one episode with LeRobot's default encodings."""
    feature = {"dtype": storage, "shape": images.shape[1:], "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/rgb", fps=FPS, root=root, features={CAMERA: feature}, use_videos=storage == "video"
    )
    for image in images:
        dataset.add_frame({CAMERA: image, "task": "none"})
    dataset.save_episode()
    dataset.finalize()
    return root


def label(source: Path, root: Path, millimetres: np.ndarray, storage: str) -> float:
    """Add depth as the command does; returns the CPU seconds of encoding it."""
    folder, key = root.with_suffix(".episode"), depth_key(CAMERA)
    start = time.process_time()
    writer = EpisodeDepthWriter(folder, {key: storage}, FPS)
    writer.add({key: millimetres})
    writer.close()
    seconds = time.process_time() - start
    add_depth_features(source, root, {0: folder}, {CAMERA: storage}, {"depth_unit": "mm"})
    return seconds


def stored_bytes(root: Path, key: str, storage: str) -> int:
    if storage == "video":
        return sum(file.stat().st_size for file in (root / "videos" / key).rglob("*.mp4"))
    cells = [pq.read_table(file)[key].to_pylist() for file in (root / "data").rglob("*.parquet")]
    return sum(len(cell["bytes"]) for column in cells for cell in column)


def reading(root: Path) -> Callable[[], float]:
    """A function that reads all frames and returns the CPU seconds of it."""
    dataset: Any = LeRobotDataset("local/x", root=root, return_uint8=True)

    def read() -> float:
        start = time.process_time()
        for index in range(len(dataset)):
            dataset[index]
        return time.process_time() - start

    read()
    return read


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    images, metres = render(arguments.frames, arguments.height, arguments.width)
    relative = pseudo_depth(1 / torch.from_numpy(metres))
    labels = {"metric": to_millimetres(torch.from_numpy(metres)), "relative": to_millimetres(relative)}
    print(f"{len(images)} frames of {arguments.width} x {arguments.height}; kB and CPU ms are per frame")
    print(
        f"{'RGB + depth':24}{'RGB kB':>8}{'depth kB':>10}{'ratio':>7}{'encode ms':>11}{'read ms':>9}{'with depth':>12}{'ratio':>7}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        sources = {
            storage: record(Path(temporary) / storage, images, storage) for storage in ("image", "video")
        }
        for (storage, depth_storage), (depth_type, millimetres) in product(STORAGES, labels.items()):
            root = Path(temporary) / f"{storage}_{depth_storage}_{depth_type}"
            encode = label(sources[storage], root, millimetres, depth_storage)
            rgb, depth = (
                stored_bytes(root, *stored)
                for stored in ((CAMERA, storage), (depth_key(CAMERA), depth_storage))
            )
            # Alternating, so that another load on the machine meets both.
            readers = [reading(sources[storage]), reading(root)]
            plain, both = np.median([[read() for read in readers] for _ in range(ROUNDS)], axis=0)
            scale = 1e3 / len(images)
            faults = [f"size above {LARGEST_SIZE}"] if depth / rgb > LARGEST_SIZE else []
            faults += [f"time above {LARGEST_TIME}"] if both / plain > LARGEST_TIME else []
            name = f"{storage} + {depth_storage}, {depth_type}"
            print(
                f"{name:24}{rgb / 1e6 * scale:8.1f}{depth / 1e6 * scale:10.1f}{depth / rgb:7.2f}"
                f"{encode * scale:11.1f}{plain * scale:9.1f}{both * scale:12.1f}{both / plain:7.2f}"
                + (f"  ({', '.join(faults)})" if faults else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
