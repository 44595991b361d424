"""What depth and language add to reading a training batch.

Collects demonstrations of LIBERO with depth and questions, and stores their frames in several ways, each with depth and language,
without depth, without language, and without both. Reads the same batches of each as training does: LeRobot's dataset
and collate function, and the preprocessor of the policy. Times are CPU seconds of one process, since wall seconds on a shared
machine say little; the datasets take turns, so that disturbances meet all. The goal is at most 1.6 times the batch
without either.

    python benchmarks/reading.py --size=256 --repeats=7
    python benchmarks/reading.py --size=480 --max_side=256 --storages video mixed
    python benchmarks/reading.py --noise=1      # depth as a sensor may give it, with noise of 1 mm

Storages: "simulator" is what lerobot-gem-libero-demos writes (BMP and PFM), "images" what LeRobotDataset.add_frame writes (PNG and
16-bit TIFF), "files" what lerobot-gem-import keeps of GEM-250K (JPEG and 16-bit PNG); "video" and "mixed" are LeRobot's videos
(AV1) after lerobot-gem-label-depth --storage=camera (12-bit HEVC) and --storage=image (16-bit PNG).
"""

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from lerobot_gem.data.depth_labels.depth_model import shrink, to_millimetres
from lerobot_gem.data.libero_demos.collecting import collect
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.processing.depth_cameras import depth_key
from lerobot_gem.storage.depth_columns import add_depth_features
from lerobot_gem.storage.depth_files import EpisodeDepthWriter
from lerobot_gem.storage.images import encode, image_suffix
from lerobot_gem.storage.language_columns import EVENTS, PERSISTENT, add_language_columns
from lerobot_gem.storage.output_folder import OutputDataset

FPS = 5
CAMERAS = ("observation.images.image", "observation.images.image2")
DEPTH_CAMERAS = tuple(map(depth_key, CAMERAS))
VECTORS = ("observation.state", "action")
LIMIT = 1.6
STORAGES = ("simulator", "images", "files", "video", "mixed")
LABELLED = {"video": "video", "mixed": "image"}  # how depth is stored beside videos
TWINS = {
    "neither": {"depth", "language"},
    "depth": {"language"},
    "language": {"depth"},
    "both": set[str](),
}
Frame = dict[str, Any]


def render(root: Path, episodes: int, size: int, noise: float) -> list[Frame]:
    """Frames of demonstrations: colours (H, W, 3) uint8, depth (H, W, 1) float32 in metres, vectors, language rows."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    collect(
        LiberoDemosConfig(
            output=OutputDataset(root),
            task_ids=[0],
            episodes_per_task=episodes,
            image_size=size,
            fps=FPS,
            qa=QuestionsConfig(),
        )
    )
    random = np.random.default_rng(0)
    dataset: Any = LeRobotDataset("local/rendered", root=root, depth_output_unit="m")
    language = pa.concat_tables(
        pq.read_table(file, columns=[PERSISTENT, EVENTS])
        for file in sorted((root / "data").rglob("*.parquet"))
    ).to_pylist()
    frames = []
    for item, rows in zip(dataset, language, strict=True):
        frame: Frame = {"episode": int(item["episode_index"]), "task": item["task"], **rows}
        for key in CAMERAS:
            colour, depth = (item[name].movedim(0, -1).numpy() for name in (key, depth_key(key)))
            frame[key] = (255 * colour).round().astype(np.uint8)
            frame[depth_key(key)] = (depth + random.normal(0, noise / 1000, depth.shape)).astype(np.float32)
        for key in VECTORS:
            frame[key] = item[key].numpy()
        frames.append(frame)
    return frames


def write_dataset(root: Path, storage: str, frames: Sequence[Frame], max_side: int) -> None:
    """The dataset with depth and language rows."""
    if storage in LABELLED:
        write_labelled(root, LABELLED[storage], frames, max_side)
    else:
        record(root, storage, frames, [*CAMERAS, *DEPTH_CAMERAS])
    add_language_columns(root, [frame[PERSISTENT] for frame in frames], [frame[EVENTS] for frame in frames])


def record(root: Path, storage: str, frames: Sequence[Frame], cameras: Sequence[str]) -> None:
    """A dataset without language, of some cameras."""
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    datasets.disable_progress_bars()
    unit = "m" if storage == "simulator" else "mm"
    features: dict[str, Any] = {}
    for key in (*cameras, *VECTORS):
        features[key] = {"dtype": "float32", "shape": frames[0][key].shape, "names": None}
        if key in cameras:
            dtype = "video" if storage == "video" else "image"
            features[key] |= {"dtype": dtype, "names": ["height", "width", "channels"]}
        if key in DEPTH_CAMERAS:
            features[key]["info"] = {"is_depth_map": True, "depth_unit": unit}
    dataset = LeRobotDataset.create(
        "local/reading", fps=FPS, root=root, use_videos=storage == "video", features=features
    )
    for episode in episodes_of(frames):
        stored = [
            {
                key: to_millimetres(torch.from_numpy(frame[key]))
                if key in DEPTH_CAMERAS and unit == "mm"
                else frame[key]
                for key in (*features, "task")
            }
            for frame in episode
        ]
        if storage in ("images", "video"):
            for frame in stored:
                dataset.add_frame(frame)
            dataset.save_episode()
        else:
            with tempfile.TemporaryDirectory() as folder:
                dataset.save_episode(episode_data=episode_of_files(dataset, Path(folder), storage, stored))
    dataset.finalize()


def write_labelled(root: Path, storage: str, frames: Sequence[Frame], max_side: int) -> None:
    """A dataset of videos, with depth as `lerobot-gem-label-depth` adds it."""
    source, folders = root.with_name("unlabelled"), {}
    record(source, "video", frames, CAMERAS)
    for number, episode in enumerate(episodes_of(frames)):
        folders[number] = root.with_name(f"episode-{number}")
        writer = EpisodeDepthWriter(folders[number], dict.fromkeys(DEPTH_CAMERAS, storage), FPS)
        for frame in episode:
            depths = {key: torch.from_numpy(frame[key][None, ..., 0]) for key in DEPTH_CAMERAS}
            writer.add({key: to_millimetres(shrink(depth, max_side)) for key, depth in depths.items()})
        writer.close()
    add_depth_features(source, root, folders, dict.fromkeys(CAMERAS, storage), {"depth_unit": "mm"})


def episodes_of(frames: Sequence[Frame]) -> list[list[Frame]]:
    return [list(group) for _, group in groupby(frames, key=lambda frame: frame["episode"])]


def episode_of_files(dataset: Any, folder: Path, storage: str, episode: Sequence[Frame]) -> Frame:
    """An episode as `save_episode` takes it, with image files already encoded."""
    length = len(episode)
    data: Frame = {
        "size": length,
        "task": [frame["task"] for frame in episode],
        "episode_index": dataset.meta.total_episodes,
        "frame_index": np.arange(length),
        "timestamp": np.arange(length) / FPS,
        "index": [],
        "task_index": [],
    }
    for key in episode[0].keys() - {"task"}:
        values = [frame[key] for frame in episode]
        if values[0].ndim == 1:
            data[key] = np.stack(values)
            continue
        suffix = image_suffix(key in DEPTH_CAMERAS)
        data[key] = [str(folder / f"{key}-{number:06d}{suffix}") for number in range(length)]
        for path, value in zip(data[key], values, strict=True):
            Path(path).write_bytes(encode(value) if storage == "simulator" else file_of(value))
    return data


def file_of(image: NDArray[Any]) -> bytes:
    """JPEG of colours (H, W, 3), PNG of depth (H, W, 1)."""
    buffer = io.BytesIO()
    if image.shape[-1] == 3:
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
    else:
        Image.fromarray(image[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def write_twin(root: Path, twin: Path, without: set[str]) -> None:
    """The same dataset without "depth" or "language", or both."""

    def is_left_out(column: str) -> bool:
        part = "depth" if column.endswith("_depth") else column.partition("_")[0]
        return part in without

    shutil.copytree(root, twin)
    for file in (twin / "data").glob("*/*.parquet"):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if not is_left_out(name)]
        pq.write_table(table.select(kept), file)
    file = twin / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"] = {name: value for name, value in info["features"].items() if not is_left_out(name)}
    file.write_text(json.dumps(info))


class Reader:
    """Reads batches as the training of a policy does.

    Args:
        root: Dataset.
        policy: "gem" or "gem_vla".
        chunk_size: Actions of a sample of `gem_vla`.
    """

    def __init__(self, root: Path, policy: str, chunk_size: int) -> None:
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
        from lerobot.datasets.factory import resolve_delta_timestamps
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
        from lerobot.policies.factory import make_policy, make_pre_post_processors

        from lerobot_gem.policies.gem.configuration_gem import GemConfig
        from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

        settings = {"preset": "tiny", "device": "cpu"}
        config: Any = (
            GemConfig(**settings, stage="joint", allow_untrained=True)
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
        make_policy(config, ds_meta=meta)  # which tells the configuration what the dataset has
        self.preprocess, _ = make_pre_post_processors(config, dataset_stats=meta.stats)

    def read(self, indices: Sequence[int]) -> tuple[float, float]:
        """CPU seconds of LeRobot, and of the preprocessor, for one batch."""
        from lerobot.utils.collate import lerobot_collate_fn

        start = time.process_time()
        batch = lerobot_collate_fn([self.dataset[index] for index in indices])
        read = time.process_time()
        self.preprocess(batch)
        return read - start, time.process_time() - read


def compare(
    roots: dict[str, Path], policy: str, frames: int, arguments: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Median CPU milliseconds per sample of LeRobot and of the preprocessor, by twin."""
    readers = {twin: Reader(root, policy, arguments.chunk_size) for twin, root in roots.items()}
    times: dict[str, list[tuple[float, float]]] = {twin: [] for twin in readers}
    random = np.random.default_rng(0)
    for repeat in range(arguments.repeats + 1):
        indices = random.choice(frames, arguments.batch_size, replace=False).tolist()
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
    parser.add_argument("--episodes", type=int, default=3, help="demonstrations, of some 25 frames each")
    parser.add_argument("--size", type=int, default=256, help="of an image's side, in pixels")
    parser.add_argument("--max_side", type=int, default=10_000, help="lerobot-gem-label-depth --max_side")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of the depth, in mm")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--chunk_size", type=int, default=8, help="actions of a sample of gem_vla")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=STORAGES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        frames = render(Path(folder) / "rendered", arguments.episodes, arguments.size, arguments.noise)
    print(
        f"{len(frames)} frames, {len(CAMERAS)} cameras of {arguments.size} px, depth noise {arguments.noise} mm, batch "
        f"{arguments.batch_size}; CPU ms per sample (LeRobot + steps)"
    )
    print(f"{'storage':>10} {'policy':>8} " + " ".join(f"{twin:>16}" for twin in TWINS) + "  both / neither")
    for storage in arguments.storages:
        with tempfile.TemporaryDirectory() as folder:
            roots = {twin: Path(folder) / twin for twin in TWINS}
            write_dataset(roots["both"], storage, frames, arguments.max_side)
            for twin, without in TWINS.items():
                if without:
                    write_twin(roots["both"], roots[twin], without)
            for policy in ("gem", "gem_vla"):
                times = compare(roots, policy, len(frames), arguments)
                ratio = sum(times["both"]) / sum(times["neither"])
                cells = " ".join(f"{read:>8.2f} + {steps:>5.2f}" for read, steps in times.values())
                verdict = "" if ratio <= LIMIT else f"  (above {LIMIT})"
                print(f"{storage:>10} {policy:>8} {cells}  {ratio:.2f}{verdict}", flush=True)


if __name__ == "__main__":
    main()
