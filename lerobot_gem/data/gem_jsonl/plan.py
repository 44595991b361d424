"""What an import will take: all records of the input, looked at once, in a database on disk.

Looking costs a thousandth of writing: texts are checked, files found and their headers read, but nothing is decoded. It
tells what must be known before the first episode is written: the number of images of a record, their size, whether there
is depth, which ids repeat, which records belong together.

SQLite keeps memory flat for any number of records. The `datasets` library was tried in its place (`from_generator`, the
columns as pandas tables to find what repeats, `sort`). On 240,000 records of 1 kB SQLite took 7.3 CPU-seconds and 2 MB of
new memory, as with 20,000; `datasets` took 31 CPU-seconds and 420 MB, 62 MB with 20,000. It was no shorter either: grouping
and "the most common" are one line of SQL each.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from lerobot_gem.data.gem_jsonl.clips import clip_size
from lerobot_gem.data.gem_jsonl.images import image_size
from lerobot_gem.data.gem_jsonl.letterbox import Size
from lerobot_gem.data.gem_jsonl.limits import is_within
from lerobot_gem.data.gem_jsonl.records import (
    GemRecord,
    RecordError,
    annotation_files,
    depth_file,
    image_file,
    is_file,
    read_records,
    source_of,
)

# Records about one image stay in one episode, so that a held-out episode has images of its own, up to this many; an
# episode is in memory as a whole.
LONGEST_EPISODE = 1000

_SCHEMA = """
CREATE TABLE records (
    position INTEGER PRIMARY KEY, file TEXT, number INTEGER, id TEXT, source TEXT,
    image TEXT, images INTEGER, width INTEGER, height INTEGER, record TEXT, reason TEXT, detail TEXT
);
CREATE TABLE depth_maps (position INTEGER, depth TEXT, image TEXT);
CREATE TABLE episodes (position INTEGER PRIMARY KEY, episode INTEGER);
CREATE INDEX by_episode ON episodes (episode);
CREATE VIEW taken AS SELECT * FROM records WHERE reason IS NULL;
"""


@dataclass(frozen=True)
class PlannedRecord:
    """A record to import.

    Attributes:
        file: Name of its file.
        number: Its number in the file, from 1.
        record: What is there.
    """

    file: str
    number: int
    record: GemRecord


@dataclass(frozen=True)
class Episode:
    """Records that become one episode.

    Attributes:
        source: The collection that all of them are from.
        records: The records, in order.
    """

    source: str
    records: list[PlannedRecord]


@dataclass(frozen=True)
class Skipped:
    """A record that is not imported, as a line of `import_skipped.jsonl` says it.

    Attributes:
        file: Name of its file.
        number: Its number in the file, from 1.
        id: Its `id`, if it has one.
        reason: See `RecordError`.
        detail: See `RecordError`.
    """

    file: str
    number: int
    id: Any
    reason: str
    detail: str


class ImportPlan:
    """The database, filled by `look_at`.

    Args:
        path: File of the database; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        if not self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def look_at(
        self,
        source: Path,
        num_images: int | None,
        unique_ids: bool,
        outside_files: bool,
        samples_per_episode: int,
    ) -> None:
        """Look at all records of a folder or file, and cut them into episodes; those that can't be used are kept with the reason.

        Episodes are of one source each, in the order of their images' paths.

        Args:
            source: As for `annotation_files`.
            num_images: Images of a record; None takes the most common number, and no clips.
            unique_ids: Of the records of a file with one id, take only the first.
            outside_files: Take files that are not in the folder of the records, too.
            samples_per_episode: Records of an episode. It has more where records share an image, and fewer at the end of a source.
                Where its images allow, a source has two episodes, so that one can be held out (LeRobot's `eval_split` takes
                whole ones, by source).

        Raises:
            FileNotFoundError: There is no file of records.
            ValueError: A file is damaged, or is a link out of the folder; nothing is kept then.
        """
        with self._database as database:
            database.execute("BEGIN")
            for file in annotation_files(source):
                if source.is_dir() and not outside_files and not is_within(file, source):
                    raise ValueError(
                        f"{file} is a link to a file outside of {source}, which might not be meant for others: expected records in the "
                        "folder itself. Give the file as --source, or allow all such files with --outside_files=true."
                    )
                for number, record in read_records(file):
                    self._add(file, number, record, num_images, outside_files)
            self._refuse_shared_depth()
            if self.num_taken:
                self._refuse_other_numbers_of_images(num_images or self.num_images)
            if unique_ids:
                self._refuse_repeated_ids()
            # Once, and apart from the texts: no task has to pass over the records of all others.
            rows = database.execute(
                "SELECT position, source, image, COUNT(*) OVER (PARTITION BY source) FROM taken "
                "ORDER BY source, image, position"
            )
            database.executemany("INSERT INTO episodes VALUES (?, ?)", _cut(rows, samples_per_episode))

    @property
    def is_complete(self) -> bool:
        """Whether the records were looked at: `look_at` keeps all of them or none."""
        return self.num_records > 0

    @property
    def num_records(self) -> int:
        """Number of records that were found."""
        return self._number("SELECT COUNT(*) FROM records")

    @property
    def num_taken(self) -> int:
        """Number of records that are taken."""
        return self._number("SELECT COUNT(*) FROM taken")

    @property
    def num_images(self) -> int:
        """Images of each record that is taken; there must be one."""
        return self._most_common("images")[0]

    @property
    def most_common_size(self) -> Size:
        """Width and height that most first images have; there must be a record that is taken."""
        width, height = self._most_common("width, height")
        return width, height

    @property
    def has_depth(self) -> bool:
        """Whether any image of a record that is taken has a depth map."""
        return self._number("SELECT COUNT(*) FROM taken JOIN depth_maps USING (position)") > 0

    @property
    def num_episodes(self) -> int:
        """Number of episodes that the records which are taken are cut into."""
        return self._number("SELECT COUNT(DISTINCT episode) FROM episodes")

    def episodes(self, numbers: range) -> list[Episode]:
        """Some episodes in a row, by their numbers."""
        rows = self._database.execute(
            "SELECT episode, source, file, number, record FROM episodes JOIN records USING (position) "
            "WHERE ? <= episode AND episode < ? ORDER BY episode, image, position",
            [numbers.start, numbers.stop],
        )
        return [
            Episode(
                source,
                [PlannedRecord(file, number, GemRecord.from_json(text)) for *_, file, number, text in group],
            )
            for (_, source), group in groupby(rows, key=lambda row: row[:2])
        ]

    def skipped(self) -> Iterator[Skipped]:
        """The records that are not taken, in their order."""
        rows = self._database.execute(
            "SELECT file, number, id, reason, detail FROM records WHERE reason IS NOT NULL ORDER BY position"
        )
        for file, number, identity, reason, detail in rows:
            yield Skipped(file, number, identity and json.loads(identity), reason, detail)

    def _add(self, file: Path, number: int, record: Any, num_images: int | None, outside_files: bool) -> None:
        identity = record.get("id") if isinstance(record, dict) else None
        row = {"file": file.name, "number": number, "id": None if identity is None else json.dumps(identity)}
        depths: list[tuple[str, str]] = []
        try:
            if isinstance(record, RecordError):
                raise record
            parsed = GemRecord.parse(record)
            row |= {"source": source_of(record, file), "record": parsed.to_json()}
            found = [(depth_file(file.parent, image), image) for image in parsed.images]
            depths = [(depth, str(PurePosixPath(image))) for depth, image in found if depth is not None]
            if not outside_files:
                _refuse_outside(parsed, [depth for depth, _ in depths], file.parent)
            row |= _look_at_media(parsed, file.parent, num_images)
        except RecordError as error:
            row |= {"reason": error.reason, "detail": error.detail}
        # JSON may hold halves of characters, which no database takes.
        row = {key: _whole(value) if isinstance(value, str) else value for key, value in row.items()}
        columns, places = ", ".join(row), ", ".join(f":{column}" for column in row)
        position = self._database.execute(f"INSERT INTO records ({columns}) VALUES ({places})", row).lastrowid
        self._database.executemany(
            "INSERT INTO depth_maps VALUES (?, ?, ?)", [(position, *depth) for depth in depths]
        )

    def _refuse_shared_depth(self) -> None:
        self._refuse(
            "depth of several images",
            "'its depth map, found by its base name, fits other images too; put it at depth/<path of the image>.png'",
            "position IN (SELECT position FROM depth_maps WHERE depth IN "
            "(SELECT depth FROM depth_maps GROUP BY depth HAVING COUNT(DISTINCT image) > 1))",
        )

    def _refuse_other_numbers_of_images(self, num_images: int) -> None:
        self._refuse(
            "number of images",
            f"'a record of ' || images || ' image(s); this dataset has {num_images} for each, another import with "
            f"--num_images can take it'",
            f"images != {num_images}",
        )

    def _refuse_repeated_ids(self) -> None:
        self._refuse(
            "duplicate id",
            "'id ' || id || ' was seen before; with --unique_ids=false such records can be taken'",
            "id IS NOT NULL AND position NOT IN (SELECT MIN(position) FROM taken GROUP BY file, id)",
        )

    def _refuse(self, reason: str, detail: str, condition: str) -> None:
        """Take no record for which an SQL condition holds; `detail` is an SQL expression."""
        self._database.execute(
            f"UPDATE records SET reason = ?, detail = {detail} WHERE reason IS NULL AND {condition}", [reason]
        )

    def _number(self, query: str) -> int:
        return int(self._database.execute(query).fetchone()[0])

    def _most_common(self, columns: str) -> tuple[int, ...]:
        query = f"SELECT {columns} FROM taken GROUP BY {columns} ORDER BY COUNT(*) DESC, {columns} LIMIT 1"
        return tuple(self._database.execute(query).fetchone())


def _cut(rows: Iterable[tuple[int, str, str, int]], size: int) -> Iterator[tuple[int, int]]:
    """Position and episode of records, given position, source, image and the number of records of the source."""
    episode, length, last_source, last_image = -1, 0, None, None
    for position, source, image, total in rows:
        is_full = length >= min(size, -(-total // 2)) and (image != last_image or length >= LONGEST_EPISODE)
        if is_full or source != last_source:
            episode, length = episode + 1, 0
        length, last_source, last_image = length + 1, source, image
        yield position, episode


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()


def _refuse_outside(record: GemRecord, depths: Iterable[str], folder: Path) -> None:
    """Raise a RecordError if a file of a record is not in the folder of the records."""
    names = [*record.images, *([record.video] if record.video else [])]
    named = [(name, image_file(folder, name)) for name in names] + [(name, folder / name) for name in depths]
    for name, path in named:
        if is_file(path) and not is_within(path, folder):
            raise RecordError(
                "file outside the source",
                f"{name!r} leads out of the folder of the records; with --outside_files=true such files are taken",
            )


def _look_at_media(record: GemRecord, folder: Path, num_images: int | None) -> dict[str, str | int]:
    """Columns about a record's images: the first one's path and size, and their number."""
    if record.video is not None:
        if num_images is None or num_images < 2:
            raise RecordError(
                "video", "expected --num_images=<frames of a clip>, at least 2 (32 in the release)"
            )
        width, height = clip_size(image_file(folder, record.video))
        return {"image": record.video, "images": num_images, "width": width, "height": height}
    sizes = [image_size(image_file(folder, image)) for image in record.images]
    width, height = sizes[0]
    first = str(PurePosixPath(record.images[0]))  # one image may be written in several ways
    return {"image": first, "images": len(sizes), "width": width, "height": height}
