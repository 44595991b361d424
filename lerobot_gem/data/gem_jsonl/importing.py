"""A folder in the GEM-250K format, or LLaVA's JSON, as a LeRobotDataset v3.0.

An import has three steps. Each is kept on disk beside the dataset, so that an interrupted import can be resumed:

1. All records are looked at (plan.py).
2. Parts are written, each a small dataset of its own, by any number of tasks (parts.py, samples.py, data/executors.py).
3. LeRobot joins them, and the folder gets its name.

A record becomes a frame. Its images are stored as the files they are, if they have the size of the dataset. The result
depends on the input and the settings alone, not on the number of tasks.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.io_utils import load_info, write_info
from tqdm.auto import tqdm

from lerobot_gem.data.executors import Phase, run_phases
from lerobot_gem.data.gem_jsonl.letterbox import RESIZES
from lerobot_gem.data.gem_jsonl.parts import (
    REPO_ID,
    Part,
    PartOutcome,
    dataset_folder,
    episodes_of_parts,
    part_folder,
    write_part,
)
from lerobot_gem.data.gem_jsonl.plan import LONGEST_EPISODE, ImportPlan, Skipped
from lerobot_gem.data.gem_jsonl.records import annotation_files
from lerobot_gem.data.gem_jsonl.samples import SampleFormat
from lerobot_gem.data.work_options import WorkOptions
from lerobot_gem.processing.depth_cameras import DEPTH_TYPE_KEY, METRIC, MIXED, RELATIVE, depth_key
from lerobot_gem.storage.output_folder import (
    OutputDataset,
    explained_full_disk,
    publish,
    removed_on_error,
)
from lerobot_gem.storage.unfinished_work import begun_or_resumed
from lerobot_gem.validation import require, require_at_least

REPORT, SKIPPED = "import.json", "import_skipped.jsonl"

# With a smaller share of valid depth in the whole dataset, the unit is probably not millimetres.
_FEW_VALID = 0.2


@dataclass
class ImportGemConfig(WorkOptions):
    """What to import, and where to.

    Attributes:
        source: Folder with the records (`*.jsonl`, else `*.json`), or one such file; paths of images start from there.
        output: The dataset to write.
        image_size: Height and width of all images. None takes the size that most images have; these keep their files.
        resize: How images of other sizes are fitted: "letterbox" adds black bars and moves `bbox_2d` and `point_2d`,
            "stretch" changes the aspect ratio, which leaves all relative coordinates true.
        num_images: Images of each sample, the dataset's cameras; records with another number are skipped. None takes the
            most common number. If given and at least 2, clips are imported as this number of evenly spaced frames.
        depth_unit_mm: Millimetres that a step of a 16-bit depth map stands for; for relative depth any value that brings it
            into 11 mm to 9.99 m.
        samples_per_episode: At most 1,000, since memory holds one episode at a time; at least 100 is best, since LeRobot
            rewrites metadata with each.
        unique_ids: Of the records of a file with one `id`, take only the first.
        outside_files: Take files outside the folder of the records too: by absolute paths, `..` and symbolic links.
        num_workers: Processes of this machine that decode, encode and write; 1 stays in this process.
    """

    source: Path
    output: OutputDataset
    image_size: tuple[int, int] | None = None
    resize: str = "letterbox"
    num_images: int | None = None
    depth_unit_mm: float = 1.0
    samples_per_episode: int = 100
    unique_ids: bool = True
    outside_files: bool = False
    num_workers: int = 1

    def __post_init__(self) -> None:
        self.check_work()
        self.source = Path(self.source)
        require(self.resize, RESIZES, "resize")
        require_at_least(self, num_images=1, samples_per_episode=1, num_workers=1)
        if self.samples_per_episode > LONGEST_EPISODE:
            raise ValueError(
                f"samples_per_episode={self.samples_per_episode}: expected at most {LONGEST_EPISODE}, since an episode is written "
                "as a whole."
            )
        if self.image_size is not None and min(self.image_size) < 16:
            raise ValueError(
                f"image_size={self.image_size}: expected height and width of at least 16 pixels."
            )
        if not 0 < self.depth_unit_mm < math.inf:  # NaN is not, either
            raise ValueError(
                f"depth_unit_mm={self.depth_unit_mm}: expected millimetres above 0 (1 by default)."
            )

    def content(self) -> dict[str, Any]:
        """Everything that decides what is written, including the state of the files of records.

        A resumed import must have the same content as the interrupted one.
        """
        settings = self.deciding()
        files = [(file.name, file.stat()) for file in annotation_files(self.source)]
        settings["source"] = str(self.source.resolve())
        settings["files"] = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
        return settings


@dataclass
class ImportReport:
    """What an import did; stored in the dataset as `import.json`.

    Attributes:
        settings: What the import was made with.
        records: Number of records that were found.
        imported: Number of records that became frames.
        skipped: Reason -> number of records that were skipped; `import_skipped.jsonl` lists each with details.
        episodes: Number of the dataset's episodes.
        image_size: Height and width of the dataset's images.
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
    _examples: dict[str, Skipped] = field(default_factory=dict)

    @property
    def depth_type(self) -> str:
        """Whether depth is "metric", "relative" (8 bits), or "mixed"."""
        relative = self.counts["depth maps of 8 bits"]
        if not relative:
            return METRIC
        return RELATIVE if relative == self.counts["depth maps"] else MIXED

    def add(self, outcome: PartOutcome) -> None:
        """Add what became of a part's records."""
        self.imported += outcome.sources.total()
        self.episodes += outcome.episodes
        self.sources += outcome.sources
        self.counts += outcome.counts
        for entry in outcome.skipped:
            self.skip(entry)

    def skip(self, entry: Skipped) -> None:
        """Add a record that was skipped."""
        self.skipped[entry.reason] += 1
        self._examples.setdefault(entry.reason, entry)

    def reasons(self) -> str:
        """Why records were skipped, the most common reason first, with an example of each."""
        found = [
            f"{count} {reason} (such as record {(entry := self._examples[reason]).number} of {entry.file}: {entry.detail})"
            for reason, count in self.skipped.most_common()
        ]
        return "; ".join(found) or "none was found"

    def lines(self) -> Iterator[str]:
        """The report in words."""
        height, width = self.image_size
        yield f"{self.imported} of {self.records} records imported, in {self.episodes} episodes, images {height} x {width}"
        for source, count in self.sources.most_common():
            yield f"  {count:8d}  from {source}"
        for reason, count in self.skipped.most_common():
            entry = self._examples[reason]
            yield f"  {count:8d}  skipped: {reason}, such as record {entry.number} of {entry.file}: {entry.detail}"
        pixels = self.counts["depth pixels"]
        for name, count in sorted(self.counts.items()):
            if count and not name.endswith("pixels"):
                yield f"  {count:8d}  {name}"
        if pixels:
            share = self.counts["valid depth pixels"] / pixels
            yield f"  {100 * share:7.1f}%  of the pixels of depth maps are within 11 mm to 9.99 m, and count as depth"
            if share < _FEW_VALID:
                yield "            which is little: is --depth_unit_mm right?"


def import_gem(config: ImportGemConfig) -> ImportReport | None:
    """Import.

    Returns:
        What the import did; None where Slurm goes on with it.

    Raises:
        FileNotFoundError: There are no records at `source`, or there is no Slurm, or a part is missing at the end.
        FileExistsError: Something is at `output.root` (or unfinished beside it), and neither `resume` nor `overwrite` is set. Or
            another run imports there.
        ValueError: A resumed import has other settings, a `.json` file is damaged, or no record can be used; the list of
            skipped records is then beside `output.root`.
        ModuleNotFoundError: Ray is not installed.
        ChildProcessError: A process was killed, or tasks failed on Ray.
        OSError: The disk is full, or can't be read.
    """
    work = _Import(config)
    phases = [Phase("look", work.look, is_shared=False), Phase("write", work.write)]
    with begun_or_resumed(
        config, work.staging, config.content(), work="import", decided_by="settings or records"
    ):
        work.begin()
        return run_phases(config, work.staging, phases, work.finish, processes=config.num_workers)


@dataclass(frozen=True)
class _Import:
    """The steps of an import; each can be another process's, on another machine."""

    config: ImportGemConfig

    @property
    def staging(self) -> Path:
        """The folder of the unfinished import."""
        root = self.config.output.root
        return root.with_name(root.name + ".importing")

    @property
    def parts(self) -> Path:
        """The folder of its parts."""
        return self.staging / "parts"

    @property
    def skipped(self) -> Path:
        """The list of an import that could use no record."""
        root = self.config.output.root
        return root.with_name(f"{root.name}.skipped.jsonl")

    def begin(self) -> None:
        """Make room for parts."""
        self.parts.mkdir(exist_ok=True)
        self.skipped.unlink(missing_ok=True)  # of an import before, which could use no record

    def look(self, rank: int, tasks: int) -> None:
        """Look at all records, unless that was done."""
        with self._plan() as plan:
            if not plan.is_complete:
                with removed_on_error(self.staging):
                    plan.look_at(
                        self.config.source,
                        self.config.num_images,
                        self.config.unique_ids,
                        self.config.outside_files,
                        self.config.samples_per_episode,
                    )

    def write(self, rank: int, tasks: int) -> None:
        """Write the parts of a task that are not there."""
        datasets.disable_progress_bars()  # one bar per episode otherwise
        with self._plan() as plan:
            if not plan.num_taken:
                return
            sample_format = _sample_format(self.config, plan)
            parts = list(enumerate(episodes_of_parts(plan.num_episodes, self.config.samples_per_episode)))
            with tqdm(total=plan.num_taken, unit="record", desc="importing", disable=tasks > 1) as progress:
                for index, numbers in parts[rank::tasks]:
                    part = Part(index, plan.episodes(numbers))
                    _, outcome = write_part(self.config.source, sample_format, self.parts, part)
                    progress.update(outcome.sources.total() + len(outcome.skipped))

    def finish(self) -> ImportReport:
        """Join the parts to the dataset.

        Raises:
            FileNotFoundError: A part is missing.
            ValueError: No record can be used.
        """
        datasets.disable_progress_bars()
        config = self.config
        with self._plan() as plan:
            # Without the path: a dataset is for others too.
            report = ImportReport(config.content() | {"source": config.source.name}, plan.num_records)
            folders = self._finished_parts(plan)
            written = []
            for folder in folders:
                outcome = PartOutcome.load(folder)
                report.add(outcome)
                if outcome.episodes:
                    written.append(dataset_folder(folder))
            for entry in plan.skipped():
                report.skip(entry)
            if not written:
                _write_skipped(plan, folders, self.skipped)
                shutil.rmtree(self.staging)
                raise ValueError(
                    f"No record of {config.source} can be used, of {report.records}: {report.reasons()}. {self.skipped} lists each. "
                    "Expected records as in docs/how_to/import_data.md."
                )
            sample_format = _sample_format(config, plan)
            report.image_size = sample_format.size[::-1]
            finished = self.staging / "dataset"
            shutil.rmtree(finished, ignore_errors=True)
            with removed_on_error(finished):
                _join(written, finished, config, self.staging / "cache")
                if sample_format.depth:
                    _describe_depth(finished, sample_format, report.depth_type)
                _write_report(report, plan, folders, finished)
        publish(finished, config.output.root, overwrite=config.overwrite)
        shutil.rmtree(self.staging)
        return report

    def _finished_parts(self, plan: ImportPlan) -> list[Path]:
        """The folders of all parts."""
        parts = range(len(episodes_of_parts(plan.num_episodes, self.config.samples_per_episode)))
        folders = [part_folder(self.parts, index) for index in parts]
        if missing := [folder.name for folder in folders if not folder.exists()]:
            raise FileNotFoundError(
                f"{self.parts} lacks {', '.join(missing)}: expected all {len(folders)} parts. Remove {self.staging / 'tasks'}, where "
                "tasks are noted as complete, and go on with --resume=true."
            )
        return folders

    @contextmanager
    def _plan(self) -> Iterator[ImportPlan]:
        """What the import will take."""
        advice = (
            "Free some (an import takes three times the size of its dataset), then go on with --resume=true."
        )
        with (
            explained_full_disk(self.staging, advice),
            # Earlier versions wrote records.sqlite, which knows no episodes: such an import looks again.
            closing(ImportPlan(self.staging / "plan.sqlite")) as plan,
        ):
            yield plan


def _sample_format(config: ImportGemConfig, plan: ImportPlan) -> SampleFormat:
    size = plan.most_common_size if config.image_size is None else config.image_size[::-1]
    return SampleFormat(
        plan.num_images, size, plan.has_depth, config.resize == "stretch", config.depth_unit_mm
    )


def _join(parts: Sequence[Path], root: Path, config: ImportGemConfig, cache: Path) -> None:
    """Join the parts' datasets into one, a data file for each part."""
    with _dataset_cache(cache):
        try:
            aggregate_datasets(
                [REPO_ID] * len(parts),
                config.output.repo_id,
                roots=list(parts),
                aggr_root=root,
                # Else LeRobot reads and writes a data file again for each part that it appends.
                concatenate_data=False,
            )
        except DatasetGenerationError as error:
            # The library hides a full disk behind an error of its own.
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise


@contextmanager
def _dataset_cache(folder: Path) -> Iterator[None]:
    """Let the `datasets` library, through which LeRobot reads, cache here, and not for good in the user's home."""
    users = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = users
        shutil.rmtree(folder, ignore_errors=True)


def _describe_depth(root: Path, sample_format: SampleFormat, depth_type: str) -> None:
    """Say in the dataset of which type its depth is, which is known only when every depth map was read."""
    info = load_info(root)
    for camera in sample_format.cameras:
        info.features[depth_key(camera)]["info"][DEPTH_TYPE_KEY] = depth_type
    write_info(info, root)


def _write_report(report: ImportReport, plan: ImportPlan, parts: Sequence[Path], root: Path) -> None:
    """Store the report and the list of skipped records in the dataset."""
    _write_skipped(plan, parts, root / SKIPPED)
    public = {key: value for key, value in vars(report).items() if not key.startswith("_")}
    (root / REPORT).write_text(json.dumps(public, indent=1))


def _write_skipped(plan: ImportPlan, parts: Sequence[Path], file: Path) -> None:
    """List the skipped records: file, number, id, reason and detail of each."""
    of_parts = (PartOutcome.load(folder).skipped for folder in parts)
    with file.open("w") as stream:
        for entry in chain(plan.skipped(), chain.from_iterable(of_parts)):
            stream.write(json.dumps(vars(entry)) + "\n")
