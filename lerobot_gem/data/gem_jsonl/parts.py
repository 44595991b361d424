"""Parts of an import: a few episodes that one process writes as a dataset of their own, complete or not there.

A part has several episodes because joining costs LeRobot half a second and rewritten metadata for each part.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.gem_jsonl.plan import Episode, Skipped
from lerobot_gem.data.gem_jsonl.records import RecordError
from lerobot_gem.data.gem_jsonl.samples import Sample, SampleFormat, make_sample
from lerobot_gem.processing.language import MESSAGES
from lerobot_gem.storage.output_folder import complete_or_absent
from lerobot_gem.storage.recorded_episodes import episode_data

REPO_ID = "local/part"

# Frames are no video; LeRobot needs a rate all the same.
_FPS = 1
# LeRobot holds a part in memory several times while it joins them: 500 images of 100 kB with depth are 0.1 GB.
_RECORDS = 500


@dataclass(frozen=True)
class Part:
    """Episodes that are written together.

    Attributes:
        index: Place of the part in the import.
        episodes: The episodes, in order.
    """

    index: int
    episodes: Sequence[Episode]


@dataclass
class PartOutcome:
    """What became of a part's records; kept beside its dataset.

    Attributes:
        episodes: Number of episodes that have frames; without any there is no dataset.
        sources: Collection -> number of its records that became frames.
        counts: What was done to images and depth maps.
        skipped: The other records.
    """

    episodes: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write it to a part's folder."""
        stored = {**vars(self), "skipped": [vars(entry) for entry in self.skipped]}
        (folder / "outcome.json").write_text(json.dumps(stored))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from a part's folder."""
        stored: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
        skipped = [Skipped(**entry) for entry in stored["skipped"]]
        return cls(stored["episodes"], Counter(stored["sources"]), Counter(stored["counts"]), skipped)


def episodes_of_parts(num_episodes: int, samples_per_episode: int) -> list[range]:
    """The numbers of the episodes, whose usual length is given, of each part."""
    size = max(1, _RECORDS // samples_per_episode)
    return [range(first, min(first + size, num_episodes)) for first in range(0, num_episodes, size)]


def write_part(
    source: Path, sample_format: SampleFormat, folders: Path, part: Part
) -> tuple[Path, PartOutcome]:
    """Write a part to a folder of its own, unless it is there from an interrupted import.

    Args:
        source: Folder of the records, or their file.
        sample_format: Of the samples.
        folders: Where the part's folder is made.
        part: The episodes.

    Returns:
        The folder of the part's dataset, which exists if any record became a frame, and what became of the records.
    """
    folder = part_folder(folders, part.index)
    if not folder.exists():
        with complete_or_absent(folder) as writing:
            images = source if source.is_dir() else source.parent
            outcome = _write_dataset(images, sample_format, part.episodes, dataset_folder(writing))
            outcome.save(writing)
    return dataset_folder(folder), PartOutcome.load(folder)


def part_folder(folders: Path, index: int) -> Path:
    """Folder of a part, in that of all."""
    return folders / f"part-{index:06d}"


def dataset_folder(folder: Path) -> Path:
    """Folder of the dataset in a part's folder."""
    return folder / "dataset"


def _write_dataset(
    images: Path, sample_format: SampleFormat, episodes: Sequence[Episode], root: Path
) -> PartOutcome:
    """Write episodes as a dataset, with image files as they are."""
    outcome, dataset = PartOutcome(), None
    with ExitStack() as stack:
        for episode in episodes:
            with TemporaryDirectory(dir=root.parent) as scratch:
                samples = list(_samples(images, sample_format, Path(scratch), episode, outcome))
                if not samples:
                    continue
                if dataset is None:
                    dataset = LeRobotDataset.create(
                        REPO_ID,
                        fps=_FPS,
                        features=sample_format.features,
                        root=root,
                        use_videos=False,
                        # All at once: statistics of single frames are integers, others are not, and a file has one type.
                        metadata_buffer_size=len(episodes),
                    )
                    # After an error too: a dataset finalises itself when it is collected, in a folder that is gone by then.
                    stack.callback(dataset.finalize)
                _save_episode(dataset, samples, episode.source)
            outcome.episodes += 1
            outcome.sources[episode.source] += len(samples)
    return outcome


def _samples(
    images: Path, sample_format: SampleFormat, scratch: Path, episode: Episode, outcome: PartOutcome
) -> Iterator[Sample]:
    for place, planned in enumerate(episode.records):
        record = planned.record
        try:
            sample = make_sample(record, images, sample_format, scratch, f"{place:06d}")
        except RecordError as error:
            identity = record.fields.get("id")
            skipped = Skipped(planned.file, planned.number, identity, error.reason, error.detail)
            outcome.skipped.append(skipped)
        else:
            outcome.counts += sample.counts
            yield sample


def _save_episode(dataset: LeRobotDataset, samples: Sequence[Sample], task: str) -> None:
    columns = {key: [sample.files[key] for sample in samples] for key in samples[0].files}
    columns[MESSAGES] = [sample.messages for sample in samples]
    dataset.save_episode(episode_data=episode_data(len(samples), task, columns, dataset))
