"""Speed, memory and size of `lerobot-gem-import`, against LeRobot's bare writer with the same images.

Makes a folder of records (crops of a photograph with sensor noise, 448 x 448 JPEG of about 60 kB; 16-bit depth of smooth
surfaces), or takes one with --folder. Each job runs in a process of its own:

* bare: `LeRobotDataset.save_episode` on the same files, in episodes of the same length, nothing checked;
* frames: `LeRobotDataset.add_frame` on the decoded images, as a recording writes;
* import, with one and with two processes, and with letterboxing to 448 x 336.

Memory is that of the main process.

    python benchmarks/importing.py --records=10000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image
from resident_memory import resident_bytes  # beside this file

from lerobot_gem.data.gem_jsonl.importing import ImportGemConfig, import_gem
from lerobot_gem.storage.output_folder import OutputDataset

LEAST_RATIO = 0.6  # of the bare writer's speed
MOST_GROWTH = 200  # MB over all records
MOST_DEPTH = 1.5  # of the bytes of the images
SIDE = 448
PICTURES = 300  # different ones; more records link to them
EPISODE = 100
IMAGE, DEPTH = "observation.images.image", "observation.images.image_depth"


def make_folder(folder: Path, records: int) -> None:
    """Write a folder in the GEM-250K format."""
    import matplotlib

    photograph = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    with Image.open(photograph) as image:
        photo = image.convert("RGB")
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    with (folder / "gem.jsonl").open("w") as stream:
        for number in range(records):
            image, depth = (folder / name / f"{number:06d}" for name in ("images", "depth"))
            if number < PICTURES:
                side = int(random.integers(300, 500))
                left, top = (int(random.integers(0, limit - side)) for limit in photo.size)
                crop = photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
                noisy = np.asarray(crop) + random.normal(0, 4, (SIDE, SIDE, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
                    image.with_suffix(".jpg"), quality=90
                )
                x, y = random.uniform(0.3, 0.7, 2)
                ball = (columns - x) ** 2 + (rows - y) ** 2 < 0.04
                surface = 1000 + 2000 * rows + 500 * np.sin(5 * columns + number) - 300 * ball
                Image.fromarray(surface.astype(np.uint16)).save(depth.with_suffix(".png"))
            else:
                same = f"{number % PICTURES:06d}"
                os.link(folder / "images" / f"{same}.jpg", image.with_suffix(".jpg"))
                os.link(folder / "depth" / f"{same}.png", depth.with_suffix(".png"))
            question = {"from": "human", "value": f"<image>\nWhat is in picture {number}?"}
            turns = [question, {"from": "gpt", "value": "Somebody in front of a flag."}]
            record = {"id": number, "image": f"images/{number:06d}.jpg", "conversations": turns}
            stream.write(json.dumps(record) + "\n")


def bare_dataset(root: Path) -> LeRobotDataset:
    names = ["height", "width", "channels"]
    image = {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": names}
    depth = {"dtype": "image", "shape": (SIDE, SIDE, 1), "names": names, "info": {"is_depth_map": True}}
    text = {"dtype": "string", "shape": (1,), "names": None}
    features = {IMAGE: image, DEPTH: depth, "messages": text}
    return LeRobotDataset.create("local/bare", fps=1, features=features, root=root, use_videos=False)


def files(folder: Path, records: int) -> list[tuple[str, str]]:
    images = [folder / "images" / f"{number:06d}.jpg" for number in range(records)]
    return [(str(image), str(folder / "depth" / f"{image.stem}.png")) for image in images]


def write_bare(folder: Path, root: Path, records: int) -> None:
    dataset = bare_dataset(root)
    pairs = files(folder, records)
    for start in range(0, records, EPISODE):
        part = pairs[start : start + EPISODE]
        count = len(part)
        dataset.save_episode(
            episode_data={
                "size": count,
                "task": ["vqa"] * count,
                "episode_index": start // EPISODE,
                "frame_index": np.arange(count),
                "timestamp": np.arange(count),
                "index": [],
                "task_index": [],
                "messages": ["[]"] * count,
                IMAGE: [image for image, _ in part],
                DEPTH: [depth for _, depth in part],
            }
        )
    dataset.finalize()


def write_frames(folder: Path, root: Path, records: int) -> None:
    dataset = bare_dataset(root)
    for number, (image, depth) in enumerate(files(folder, records), 1):
        with Image.open(image) as rgb, Image.open(depth) as millimetres:
            frame = {IMAGE: np.asarray(rgb), DEPTH: np.asarray(millimetres)[..., None]}
        dataset.add_frame({**frame, "messages": "[]", "task": "vqa"})
        if number % EPISODE == 0 or number == records:
            dataset.save_episode()
    dataset.finalize()


def jobs(folder: Path, root: Path, records: int) -> dict[str, Callable[[], object]]:
    def run(**settings: object) -> object:
        return import_gem(ImportGemConfig(folder, OutputDataset(root), **settings))

    return {
        "bare": lambda: write_bare(folder, root, records),
        "frames": lambda: write_frames(folder, root, records),
        "import": run,
        "import, 2 workers": lambda: run(num_workers=2),
        "import, letterboxed": lambda: run(image_size=(336, 448)),
    }


def measure(job: Callable[[], object], records: int) -> dict[str, float]:
    """Samples per second of wall and of CPU time (workers included), and memory before and at most, in MB."""
    imported, wall = resident_bytes() / 2**20, time.perf_counter()
    before = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    job()
    after = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    wall = time.perf_counter() - wall
    peak = resident_bytes(peak=True) / 2**20
    return {"wall": records / wall, "cpu": records / (after - before), "imported": imported, "peak": peak}


def column_bytes(root: Path, column: str) -> int:
    """Bytes of a column in the data files."""
    total = 0
    for file in (root / "data").glob("*/*.parquet"):
        metadata = pq.ParquetFile(file).metadata
        for group in range(metadata.num_row_groups):
            parts = (metadata.row_group(group).column(place) for place in range(metadata.num_columns))
            total += sum(
                part.total_compressed_size
                for part in parts
                if part.path_in_schema.split(".bytes")[0] == column
            )
    return total


def run_job(folder: Path, root: Path, job: str, records: int) -> dict[str, float]:
    options = [f"--folder={folder}", f"--root={root}", f"--job={job}", f"--records={records}"]
    command = [sys.executable, __file__, *options]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=10_000, help="of the memory measurement")
    parser.add_argument("--timed", type=int, default=1_000, help="records of each timed job")
    parser.add_argument("--folder", type=Path, help="only tell the sizes of this folder once imported")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job = jobs(arguments.folder, arguments.root, arguments.records)[arguments.job]
        print(json.dumps(measure(job, arguments.records)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if arguments.folder:
            import_gem(ImportGemConfig(arguments.folder, OutputDataset(place / "set")))
            print_sizes(place / "set")
            return
        make_folder(place / "timed", arguments.timed)
        print(f"{arguments.timed} records\n{'records/s wall':>15}{'CPU':>8}{'peak MB':>9}{'of them new':>13}")
        speeds = {}
        for number, name in enumerate(jobs(place, place, 0)):
            result = run_job(place / "timed", place / f"out{number}", name, arguments.timed)
            speeds[name] = result["cpu"]
            new = result["peak"] - result["imported"]
            print(
                f"{result['wall']:15.1f}{result['cpu']:8.1f}{result['peak']:9.0f}{new:13.0f}  {name}",
                flush=True,
            )
            if name == "import":
                first = result["peak"]
        for name, base in (("import", "bare"), ("import, letterboxed", "frames")):
            ratio = speeds[name] / speeds[base]
            print(f"{name} / {base}, by CPU time: {ratio:.2f} (at least {LEAST_RATIO})")
        print_sizes(place / "out2")
        make_folder(place / "long", arguments.records)
        last = run_job(place / "long", place / "long-out", "import", arguments.records)["peak"]
        print(
            f"peak of memory from {arguments.timed} to {arguments.records} records: {last - first:+.0f} MB (at most {MOST_GROWTH})"
        )


def print_sizes(root: Path) -> None:
    sizes = [column_bytes(root, column) for column in (IMAGE, DEPTH)]
    print(
        f"images {sizes[0] / 1e6:.1f} MB, depth {sizes[1] / 1e6:.1f} MB: {sizes[1] / sizes[0]:.2f} (at most {MOST_DEPTH})"
    )


if __name__ == "__main__":
    main()
