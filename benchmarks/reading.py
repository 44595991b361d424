"""What depth and language add to reading a training batch.

Makes a small data set of two cameras with depth and language rows, and the same without depth, without language, and without
both. Reads the same batches of each as training does: LeRobot's data set and collate function, and the preprocessor
of the policy. Times are CPU seconds of one process, since wall seconds on a shared machine say little; the data sets take
turns, so that disturbances meet all. The goal is at most 1.6 times the batch without either.

    python benchmarks/reading.py --frames=64 --repeats=7

Storages: "video" and "images" are what LeRobotDataset.add_frame writes (AV1 and 12-bit HEVC; PNG and 16-bit TIFF), "simulator"
what lerobot-gem-libero-demos writes (BMP and 32-bit TIFF), "files" the files of GEM-250K as they are (JPEG, 16-bit PNG).
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

CAMERAS = ("observation.images.image", "observation.images.image2")
EPISODE = 16
LIMIT = 1.6
TASK = "pick up the orange juice and place it in the basket"
# Formats of colour and of depth in files that are stored as they are, and what 1 m is in them; none of LeRobot's own.
STORAGES: dict[str, tuple[str, str, int] | None] = {
    "video": None,
    "images": None,
    "simulator": ("bmp", "tiff", 1),
    "files": ("jpg", "png", 1000),
}
TWINS = {
    "neither": {"depth", "language"},
    "depth": {"language"},
    "language": {"depth"},
    "both": set[str](),
}


def picture(size: int, frame: int, camera: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colours (H, W, 3) and metres (H, W) of boxes on a textured table, with noise as sensors have it."""
    random = np.random.default_rng((frame, camera))
    y, x = np.mgrid[0:size, 0:size] / size
    metres = 1.6 - 0.8 * y + 0.02 * np.sin(9 * x)
    colours = np.stack([120 + 60 * np.sin(20 * x + 3 * y), 100 + 80 * y, 90 + 60 * x], axis=-1)
    for _ in range(6):
        left, top = random.uniform(0, 0.8, 2)
        width, height = random.uniform(0.05, 0.25, 2)
        inside = (x > left) & (x < left + width) & (y > top) & (y < top + height)
        metres[inside] -= random.uniform(0.05, 0.3)
        colours[inside] = random.uniform(0, 255, 3)
    colours += random.normal(0, 4, colours.shape)
    metres += random.normal(0, 0.002, metres.shape)
    return colours.clip(0, 255).astype(np.uint8), metres.astype(np.float32)


def write_data_set(root: Path, storage: str, frames: int, size: int) -> None:
    """The data set with depth and language rows."""
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    datasets.disable_progress_bars()
    formats = STORAGES[storage]
    image = {"dtype": "video" if storage == "video" else "image", "names": ["height", "width", "channels"]}
    features: dict[str, Any] = {key: {**image, "shape": (size, size, 3)} for key in CAMERAS}
    for key in CAMERAS:
        features[f"{key}_depth"] = {**image, "shape": (size, size, 1), "info": {"is_depth_map": True}}
    for key, dim in (("observation.state", 8), ("action", 7)):
        features[key] = {"dtype": "float32", "shape": (dim,), "names": None}
    dataset = LeRobotDataset.create(
        "local/reading", fps=5, root=root, use_videos=storage == "video", features=features
    )
    for start in range(0, frames, EPISODE):
        if formats is None:
            for frame in range(start, start + EPISODE):
                dataset.add_frame({**observe(size, frame), "task": TASK})
            dataset.save_episode()
        else:
            with tempfile.TemporaryDirectory() as folder:
                dataset.save_episode(episode_data=episode_of_files(dataset, Path(folder), formats, start))
    dataset.finalize()
    if formats is not None:
        unit = {"depth_unit": "m" if formats[2] == 1 else "mm"}
        change_features(
            root,
            lambda stored: {
                key: feature | ({"info": feature["info"] | unit} if key.endswith("_depth") else {})
                for key, feature in stored.items()
            },
        )
    add_language(root, frames)


def observe(size: int, frame: int) -> dict[str, NDArray[Any]]:
    """A frame as LeRobot takes it, with depth in millimetres."""
    random = np.random.default_rng(frame)
    values: dict[str, NDArray[Any]] = {
        "observation.state": random.normal(size=8).astype(np.float32),
        "action": random.normal(size=7).astype(np.float32),
    }
    for camera, key in enumerate(CAMERAS):
        values[key], metres = picture(size, frame, camera)
        values[f"{key}_depth"] = (1000 * metres).round().astype(np.uint16)[..., None]
    return values


def episode_of_files(dataset: Any, folder: Path, formats: tuple[str, str, int], start: int) -> dict[str, Any]:
    """An episode as `save_episode` takes it, with image files already encoded."""
    colour_format, depth_format, per_metre = formats
    size = dataset.meta.features[CAMERAS[0]]["shape"][0]
    frames = [observe(size, frame) for frame in range(start, start + EPISODE)]
    data: dict[str, Any] = {
        "size": EPISODE,
        "task": [TASK] * EPISODE,
        "episode_index": dataset.meta.total_episodes,
        "frame_index": np.arange(EPISODE),
        "timestamp": np.arange(EPISODE) / dataset.fps,
        "index": [],
        "task_index": [],
    }
    for key in frames[0]:
        values = np.stack([frame[key] for frame in frames])
        if not key.startswith("observation.images."):
            data[key] = values
            continue
        suffix = depth_format if key.endswith("_depth") else colour_format
        if key.endswith("_depth"):
            values = values[..., 0] if per_metre == 1000 else values[..., 0].astype(np.float32) / 1000
        data[key] = [str(folder / f"{key}-{number:06d}.{suffix}") for number in range(EPISODE)]
        for path, value in zip(data[key], values, strict=True):
            Image.fromarray(value).save(path, **({"quality": 90} if suffix == "jpg" else {}))
    return data


def add_language(root: Path, frames: int) -> None:
    """Three sub-tasks and a plan for each episode, two questions about each camera for each frame."""
    from lerobot_gem.data.language_columns import add_language_columns, question_rows, row

    persistent = [
        *(row("assistant", f"step {n} of the task", "subtask", timestamp=float(n)) for n in range(3)),
        row("assistant", "reach, grasp, lift, place", "plan", timestamp=0.0),
    ]
    events = [
        question_rows(
            (camera, question, answer)
            for camera in CAMERAS
            for question, answer in (
                (f"Point to object {index}.", f'[{{"point_2d": [{index}, 500], "label": "juice"}}]'),
                (f"How far is object {index} from the gripper?", f"{index} cm"),
            )
        )
        for index in range(frames)
    ]
    add_language_columns(root, [persistent] * frames, events)


def change_features(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = root / "meta" / "info.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps(info | {"features": change(info["features"])}))


def write_twin(root: Path, twin: Path, without: set[str]) -> None:
    """The same data set without "depth" or "language", or both."""

    def is_left_out(column: str) -> bool:
        kind = "depth" if column.endswith("_depth") else column.partition("_")[0]
        return kind in without

    shutil.copytree(root, twin)
    for file in (twin / "data").glob("*/*.parquet"):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if not is_left_out(name)]
        pq.write_table(table.select(kept), file)
    change_features(
        twin, lambda features: {name: value for name, value in features.items() if not is_left_out(name)}
    )


class Reader:
    """Reads batches as the training of a policy does.

    Args:
        root: Data set.
        policy: "gem" or "gem_vla".
        chunk_size: Actions of a sample of `gem_vla`.
    """

    def __init__(self, root: Path, policy: str, chunk_size: int) -> None:
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
        from lerobot.datasets.factory import resolve_delta_timestamps
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
        from lerobot.policies.factory import make_pre_post_processors

        from lerobot_gem.configuration_gem import GemConfig
        from lerobot_gem.configuration_gem_vla import GemVLAConfig
        from lerobot_gem.data.inspection.stage_checks import bind
        from lerobot_gem.models.presets import get_preset

        settings = {"preset": "tiny", "device": "cpu"}
        config: Any = (
            GemConfig(**settings, stage="joint")
            if policy == "gem"
            else GemVLAConfig(**settings, chunk_size=chunk_size)
        )
        config.depth.loss_weight = 0.0  # the twin without depth is read with the same settings
        meta = LeRobotDatasetMetadata("local/reading", root=root)
        self.dataset = LeRobotDataset(
            "local/reading",
            root=root,
            video_backend="pyav",
            delta_timestamps=resolve_delta_timestamps(config, meta),
            return_uint8=True,
        )
        bind(config, meta, {})
        config.backbone.architecture = get_preset("tiny").backbone
        self.meta = meta
        self.preprocess, _ = make_pre_post_processors(config, dataset_stats=meta.stats)

    def read(self, indices: Sequence[int]) -> tuple[float, float]:
        """CPU seconds of LeRobot, and of the preprocessor, for one batch."""
        from lerobot.utils.collate import lerobot_collate_fn

        from lerobot_gem.processing.steps import LanguageRowsStep

        LanguageRowsStep.bind(self.meta)  # one data set per process; here they take turns
        start = time.process_time()
        batch = lerobot_collate_fn([self.dataset[index] for index in indices])
        read = time.process_time()
        self.preprocess(batch)
        return read - start, time.process_time() - read


def compare(
    roots: dict[str, Path], policy: str, arguments: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Median CPU milliseconds per sample of LeRobot and of the preprocessor, by twin."""
    readers = {twin: Reader(root, policy, arguments.chunk_size) for twin, root in roots.items()}
    times: dict[str, list[tuple[float, float]]] = {twin: [] for twin in readers}
    random = np.random.default_rng(0)
    for repeat in range(arguments.repeats + 1):
        indices = random.choice(arguments.frames, arguments.batch_size, replace=False).tolist()
        for twin, reader in readers.items():
            seconds = reader.read(indices)
            if repeat:  # the first one warms up
                times[twin].append(seconds)
    return {
        twin: tuple(
            1000 * statistics.median(part) / arguments.batch_size for part in zip(*seconds, strict=True)
        )
        for twin, seconds in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=64, help="of the data set, in episodes of 16")
    parser.add_argument("--size", type=int, default=256, help="of a picture's side, in pixels")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--chunk_size", type=int, default=8, help="actions of a sample of gem_vla")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=list(STORAGES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    print(
        f"{len(CAMERAS)} cameras of {arguments.size} px, batch {arguments.batch_size}; CPU ms per sample (LeRobot + steps)"
    )
    print(f"{'storage':>10} {'policy':>8} " + " ".join(f"{twin:>18}" for twin in TWINS) + "  both / neither")
    for storage in arguments.storages:
        with tempfile.TemporaryDirectory() as folder:
            write_data_set(Path(folder) / "both", storage, arguments.frames, arguments.size)
            roots = {twin: Path(folder) / twin for twin in TWINS}
            for twin, without in TWINS.items():
                if without:
                    write_twin(roots["both"], roots[twin], without)
            for policy in ("gem", "gem_vla"):
                times = compare(roots, policy, arguments)
                ratio = sum(times["both"]) / sum(times["neither"])
                cells = " ".join(f"{read:>9.2f} + {steps:>6.2f}" for read, steps in times.values())
                verdict = "" if ratio <= LIMIT else f"  (above {LIMIT})"
                print(f"{storage:>10} {policy:>8} {cells}  {ratio:.2f}{verdict}", flush=True)


if __name__ == "__main__":
    main()
