"""A folder in the GEM-250K format, or LLaVA's JSON, as a LeRobotDataset v3.0.

In three steps, each kept on disk beside the dataset, so that an interrupted import goes on where it was:

1. All records are looked at (plan.py).
2. Episodes are written, each a small dataset of its own, by any number of processes (samples.py).
3. They are joined (joining.py), and the folder gets its name.

A record is a frame. Its images are stored as the files they are, if they have the size of the dataset. It is a
deterministic function of input and settings, whatever the number of processes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from lerobot_gem.data.gem_jsonl.joining import join_episodes
from lerobot_gem.data.gem_jsonl.letterbox import RESIZES
from lerobot_gem.data.gem_jsonl.plan import Episode, ImportPlan, Skipped
from lerobot_gem.data.gem_jsonl.records import RecordError, annotation_files
from lerobot_gem.data.gem_jsonl.samples import Sample, SampleLayout, make_sample
from lerobot_gem.data.worker_pool import map_in_order, worker_pool
from lerobot_gem.processing.language import MESSAGES
from lerobot_gem.storage.output_folder import (
    DATASET,
    begin_or_resume,
    check_output,
    explained_full_disk,
    publish,
    removed_on_error,
)

REPORT, SKIPPED = "import.json", "import_skipped.jsonl"

# Frames are no video; LeRobot needs a rate all the same.
_FPS = 1
_MOST_SAMPLES = 1000
# Of millimetres, with less valid depth in the whole dataset, the unit is probably another.
_FEW_VALID = 0.2


@dataclass
class ImportGemConfig:
    """What to import, and where to.

    Attributes:
        source: Folder with the records (`*.jsonl`, else `*.json`), or one such file; images are found from there.
        root: Folder of the dataset; must not exist unless `overwrite` says so.
        repo_id: LeRobot's name of the dataset.
        image_size: Height and width of all images. None takes the size that most have; these keep their files.
        resize: What becomes of other sizes: "letterbox" adds black bars and moves `bbox_2d` and `point_2d`, "stretch" changes
            the aspect ratio, which leaves all relative coordinates true.
        num_images: Images of each sample, the dataset's cameras; records with others are skipped. None takes the most
            common number. Given and 2 at least, clips are taken too, as so many frames evenly spaced.
        depth_unit_mm: Millimetres that a step of a 16-bit depth map stands for; for relative depth any that brings it into 11 mm
            to 9.99 m.
        samples_per_episode: At most 1,000, since memory holds one episode at a time; at least 100 is best, since LeRobot
            rewrites metadata with each.
        unique_ids: Take only the first of the records of a file with one `id`.
        num_workers: Processes that decode, encode and write; 1 stays in this process.
        resume: Go on with an interrupted import.
        overwrite: Replace the dataset at `root`, and an interrupted import.
    """

    source: Path
    root: Path
    repo_id: str = "local/gem"
    image_size: tuple[int, int] | None = None
    resize: str = "letterbox"
    num_images: int | None = None
    depth_unit_mm: float = 1.0
    samples_per_episode: int = 100
    unique_ids: bool = True
    num_workers: int = 1
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.source, self.root = Path(self.source), Path(self.root)
        if self.resize not in RESIZES:
            raise ValueError(f"resize is one of {', '.join(RESIZES)}, but is {self.resize!r}.")
        for name in ("num_images", "samples_per_episode", "num_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        if self.samples_per_episode > _MOST_SAMPLES:
            raise ValueError(
                f"samples_per_episode must be at most {_MOST_SAMPLES}, since an episode is written as a whole, but is "
                f"{self.samples_per_episode}."
            )
        if self.image_size is not None and min(self.image_size) < 16:
            raise ValueError(
                f"image_size must be at least 16 x 16 (height, width), but is {self.image_size}."
            )
        if self.depth_unit_mm <= 0:
            raise ValueError(f"depth_unit_mm must be above 0, but is {self.depth_unit_mm}.")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite contradict each other: choose one.")

    def content(self) -> dict[str, Any]:
        """Everything that decides what is written, the files of records as they are now included.

        It must agree between an import and its continuation.
        """
        others = ("root", "repo_id", "num_workers", "resume", "overwrite")
        settings = {key: value for key, value in asdict(self).items() if key not in others}
        files = [(file.name, file.stat()) for file in annotation_files(self.source)]
        settings["source"] = str(self.source.resolve())
        settings["files"] = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
        return settings


@dataclass
class ImportReport:
    """What an import did; stored in the dataset as `import.json`.

    Attributes:
        settings: That it was made with.
        records: All that were found.
        imported: Those that became frames.
        skipped: Reason -> number of the others; `import_skipped.jsonl` lists each with details.
        episodes: Of the dataset.
        image_size: Height and width of its images.
        sources: Collection -> number of its frames.
        counts: What was done to images and depth maps.
    """

    settings: dict[str, Any]
    records: int
    imported: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    episodes: int = 0
    image_size: tuple[int, int] = (0, 0)
    sources: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def depth_kind(self) -> str:
        """Whether depth is "metric", "relative" (8 bits), or "mixed"."""
        relative = self.counts["depth maps of 8 bits"]
        return "metric" if not relative else "relative" if relative == self.counts["depth maps"] else "mixed"

    def lines(self) -> Iterator[str]:
        """The report in words."""
        height, width = self.image_size
        yield f"{self.imported} of {self.records} records imported, in {self.episodes} episodes, images {height} x {width}"
        for source, count in self.sources.most_common():
            yield f"  {count:8d}  from {source}"
        for reason, count in self.skipped.most_common():
            yield f"  {count:8d}  skipped: {reason}"
        pixels = self.counts["depth pixels"]
        for name, count in sorted(self.counts.items()):
            if count and not name.endswith("pixels"):
                yield f"  {count:8d}  {name}"
        if pixels:
            share = self.counts["valid depth pixels"] / pixels
            yield f"  {100 * share:7.1f}%  of the pixels of depth maps are within 11 mm to 9.99 m, and count as depth"
            if share < _FEW_VALID:
                yield "            so few: is --depth_unit_mm right?"


def import_gem(config: ImportGemConfig) -> ImportReport:
    """Import.

    Raises:
        FileNotFoundError: There are no records at `source`.
        FileExistsError: Something is at `root` (or unfinished beside it), and neither `resume` nor `overwrite` is set.
        ValueError: A continuation with other settings, a damaged `.json`, or no record at all that can be used.
        OSError: The disk is full, or can't be read.
    """
    import datasets
    import lerobot.datasets.lerobot_dataset  # noqa: F401  (before the workers are forked, which then have it)

    datasets.disable_progress_bars()  # one bar per episode otherwise
    staging = _staging(config)
    advice = "Free some (an import takes twice the size of its dataset), then go on with --resume=true."
    with (
        explained_full_disk(staging, advice),
        worker_pool(config.num_workers) as pool,
        closing(ImportPlan(staging / "plan.sqlite")) as plan,
    ):
        if not plan.is_complete:
            with removed_on_error(staging):
                plan.look_at(config.source, config.num_images, config.unique_ids)
        # Without the path: a dataset is for others too.
        report = ImportReport(config.content() | {"source": config.source.name}, plan.count())
        written: list[str] = []
        if plan.count("reason IS NULL"):
            layout = _layout(config, plan)
            report.image_size = layout.size[::-1]
            folders = staging / "episodes"
            folders.mkdir(exist_ok=True)
            outcomes = map_in_order(
                pool,
                partial(write_episode, config.source, layout, folders),
                plan.episodes(config.samples_per_episode),
                ahead=2 * config.num_workers,
            )
            written = _summed(report, outcomes, plan.count("reason IS NULL"))
        if not written:
            report.skipped.update(entry.reason for entry in plan.skipped())
            shutil.rmtree(staging)
            raise ValueError(
                f"No record of {config.source} can be used: of {report.records}, {_list(report.skipped)}. Expected records "
                "as in docs/data.md."
            )
        finished = staging / "dataset"
        shutil.rmtree(finished, ignore_errors=True)
        with removed_on_error(finished):
            datasets_of_one = (folders / name / "dataset" for name in written)
            features = layout.features(report.depth_kind)
            join_episodes(datasets_of_one, finished, config.repo_id, _FPS, features)
            _write_report(report, plan, folders, finished)
    publish(finished, config.root)
    shutil.rmtree(staging)
    return report


@dataclass
class EpisodeOutcome:
    """What became of an episode's records; kept beside its dataset.

    Attributes:
        source: Collection that they are from.
        frames: Number of those that became frames; without any there is no dataset.
        counts: What was done to images and depth maps.
        skipped: The others.
    """

    source: str
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `asdict` of the standard library breaks counters."""
        return {**vars(self), "skipped": [vars(entry) for entry in self.skipped]}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        skipped = [Skipped(**entry) for entry in stored["skipped"]]
        return cls(stored["source"], stored["frames"], Counter(stored["counts"]), skipped)


def write_episode(
    source: Path, layout: SampleLayout, folders: Path, episode: Episode
) -> tuple[str, EpisodeOutcome]:
    """Write an episode to a folder of its own, unless it is there from an interrupted import.

    Args:
        source: See `ImportGemConfig`.
        layout: Of the samples.
        folders: Where the folder is made; it is complete or not there.
        episode: The records.

    Returns:
        The folder's name and what became of the records.
    """
    folder = folders / f"episode-{episode.index:06d}"
    if folder.exists():
        return folder.name, _read_outcome(folder)
    writing = folders / f".{folder.name}"
    shutil.rmtree(writing, ignore_errors=True)
    with removed_on_error(writing):
        scratch = writing / "files"
        scratch.mkdir(parents=True)
        outcome = EpisodeOutcome(episode.source)
        samples = list(_samples(source, layout, scratch, episode, outcome))
        if samples:
            _store(samples, layout, episode.source, writing / "dataset")
        shutil.rmtree(scratch)
        (writing / "outcome.json").write_text(json.dumps(outcome.to_dict()))
        writing.rename(folder)
    return folder.name, outcome


def _samples(
    source: Path, layout: SampleLayout, scratch: Path, episode: Episode, outcome: EpisodeOutcome
) -> Iterator[Sample]:
    folder = source if source.is_dir() else source.parent
    for place, planned in enumerate(episode.records):
        try:
            sample = make_sample(planned.record, folder, layout, scratch, f"{place:06d}")
        except RecordError as error:
            identity = planned.record.get("id")
            outcome.skipped.append(
                Skipped(planned.file, planned.number, identity, error.reason, error.detail)
            )
        else:
            outcome.frames += 1
            outcome.counts += sample.counts
            yield sample


def _store(samples: list[Sample], layout: SampleLayout, task: str, root: Path) -> None:
    """Write samples as a dataset of one episode, with files as they are."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset.create(
        "local/episode", fps=_FPS, features=layout.features(), root=root, use_videos=False
    )
    count = len(samples)
    dataset.save_episode(
        episode_data={
            "size": count,
            "task": [task] * count,
            "episode_index": 0,
            "frame_index": np.arange(count),
            "timestamp": np.arange(count) / _FPS,
            "index": [],
            "task_index": [],
            MESSAGES: [sample.messages for sample in samples],
            **{key: [sample.files[key] for sample in samples] for key in samples[0].files},
        }
    )
    dataset.finalize()


def _read_outcome(folder: Path) -> EpisodeOutcome:
    return EpisodeOutcome.from_dict(json.loads((folder / "outcome.json").read_text()))


def _staging(config: ImportGemConfig) -> Path:
    """The folder of an unfinished import, made or checked."""
    check_output(config.root, config.overwrite, DATASET)
    staging = config.root.with_name(config.root.name + ".importing")
    begin_or_resume(
        staging,
        config.content(),
        resume=config.resume,
        overwrite=config.overwrite,
        work="import",
        decided_by="settings or records",
    )
    return staging


def _layout(config: ImportGemConfig, plan: ImportPlan) -> SampleLayout:
    size = plan.most_common_size() if config.image_size is None else config.image_size[::-1]
    return SampleLayout(
        plan.num_images(), size, plan.has_depth(), config.resize == "stretch", config.depth_unit_mm
    )


def _summed(report: ImportReport, outcomes: Iterable[tuple[str, EpisodeOutcome]], records: int) -> list[str]:
    """Add up the outcomes as they come; returns the names of the episodes that have frames."""
    from tqdm.auto import tqdm

    written = []
    with tqdm(total=records, unit="record", desc="importing") as progress:
        for name, outcome in outcomes:
            if outcome.frames:
                written.append(name)
            report.episodes = len(written)
            report.imported += outcome.frames
            report.sources += Counter({outcome.source: outcome.frames})  # drops zeros
            report.counts += outcome.counts
            report.skipped.update(entry.reason for entry in outcome.skipped)
            progress.update(outcome.frames + len(outcome.skipped))
    return written


def _write_report(report: ImportReport, plan: ImportPlan, folders: Path, root: Path) -> None:
    """Complete the report, and store it and the list of skipped records in the dataset."""
    with (root / SKIPPED).open("w") as stream:
        for entry in plan.skipped():
            report.skipped[entry.reason] += 1
            stream.write(json.dumps(vars(entry)) + "\n")
        for folder in sorted(folders.glob("episode-*")):
            for entry in _read_outcome(folder).skipped:
                stream.write(json.dumps(vars(entry)) + "\n")
    (root / REPORT).write_text(json.dumps(vars(report), indent=1))


def _list(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none was found"
