"""The language of a dataset on disk: its rows by frame index, and whether it names places in the picture."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lerobot.utils.constants import ACTION

from lerobot_gem.processing.language import (
    EVENTS,
    MESSAGES,
    PERSISTENT,
    BoundLanguage,
    Row,
    check_cameras,
)
from lerobot_gem.storage.data_files import data_files

# Two numbers in brackets, or the tags and keys in which models are taught places.
_PLACES = r"[\[(]\s*-?\d+(\.\d+)?\s*,\s*-?\d|<(box|point|loc|quad)|bbox|point_2d|\"point\""

_EXPECTED = (
    "whose language rows are read: expected batches of the dataset that the policy was built for. Build policy and processors "
    "for each dataset (LeRobot's make_policy with its metadata, then make_pre_post_processors)."
)


class LanguageTable:
    """The language rows of a dataset on disk, by frame index; memory-mapped, and no picture is read.

    Args:
        meta: Metadata of a LeRobotDataset with language columns.

    Raises:
        ValueError: The data is not on disk, or a row names a camera that the dataset lacks.
    """

    def __init__(self, meta: Any) -> None:
        from lerobot.datasets.feature_utils import get_hf_features_from_features
        from lerobot.datasets.io_utils import load_nested_dataset

        try:
            # The same call as LeRobotDataset's own, so that both share one cache.
            table = load_nested_dataset(
                meta.root / "data", features=get_hf_features_from_features(meta.features)
            )
        except FileNotFoundError as error:
            raise ValueError(
                f"The language rows of {meta.repo_id!r} can't be read: {error}. They are looked up on disk; train with "
                "--dataset.streaming=false."
            ) from error
        self._repo_id = meta.repo_id
        self._indices = np.asarray(table.data.column("index"))
        self._known = {
            name: table.data.column(name)
            for name in ("episode_index", "timestamp", "task_index", ACTION)
            if name in table.column_names
        }
        self._tasks = None if meta.tasks is None else [str(task) for task in meta.tasks.index]
        self._order = np.argsort(self._indices, kind="stable")
        # Arrow's own columns: formatting a row through `datasets` takes several times as long as reading it.
        self._columns = {
            name: table.data.column(name) for name in (PERSISTENT, EVENTS) if name in table.column_names
        }
        self._check_cameras(meta)

    def rows(self, index: int, known: Mapping[str, Any] | None = None) -> tuple[list[Row], list[Row]]:
        """Persistent and event rows of a frame.

        Args:
            index: Of the frame in the whole dataset.
            known: What is known of the frame and must be so on disk: its "episode_index", "timestamp" in seconds, "task" and
                "action". Frames of two recordings may agree in all but the last.

        Raises:
            ValueError: There is no such frame, or it is another one: the frame is from another dataset.
        """
        start = int(np.searchsorted(self._indices, index, sorter=self._order))
        found = int(self._order[start]) if start < len(self._order) else -1
        if found < 0 or self._indices[found] != index:
            raise ValueError(f"Frame {index} is not in {self._repo_id!r}, {_EXPECTED}")
        for name, asked in (known or {}).items():
            here = self._value(name, found)
            if here is not None and asked is not None and not _agree(here, asked):
                raise ValueError(
                    f"Frame {index} has {name}={here} in {self._repo_id!r}, but {name}={asked} in the batch: it is of another dataset "
                    f"than that {_EXPECTED}"
                )
        row = {name: column[found].as_py() for name, column in self._columns.items()}
        return row.get(PERSISTENT) or [], row.get(EVENTS) or []

    def _value(self, name: str, found: int) -> Any:
        """What a row on disk says; None if it does not."""
        if name == "task":
            return None if self._tasks is None else self._tasks[self._known["task_index"][found].as_py()]
        column = self._known.get(name)
        return None if column is None else column[found].as_py()

    def _check_cameras(self, meta: Any) -> None:
        import pyarrow.compute as pc

        for name, column in self._columns.items():
            rows = pc.list_flatten(column)
            named = set(pc.unique(pc.struct_field(rows, "camera")).to_pylist()) - {None}
            check_cameras(named, meta.camera_keys, f"the rows of {name!r} in {meta.repo_id!r}")


def _agree(here: Any, asked: Any) -> bool:
    """Whether two values are one: texts, or numbers but for the precision of single floats; NaN may be anything."""
    if isinstance(here, str) or isinstance(asked, str):
        return bool(here == asked)
    first, second = (np.ravel(np.asarray(value, dtype=np.float64)) for value in (here, asked))
    if first.shape != second.shape:
        return False
    both = ~np.isnan(first) & ~np.isnan(second)
    return np.allclose(first[both], second[both], rtol=1e-5, atol=1e-5)


def bound_language(meta: Any) -> BoundLanguage:
    """What the dataset that `meta` describes says to the step that reads its language.

    Raises:
        ValueError: See `LanguageTable`.
    """
    return BoundLanguage(LanguageTable(meta) if meta.has_language_columns else None, meta.camera_keys)


def has_language(meta: Any) -> bool:
    """Whether any frame of a dataset has a question, an answer or another text.

    Args:
        meta: `LeRobotDatasetMetadata`; where its data files are not on this machine, a column for texts is enough.
    """
    import pyarrow.compute as pc

    names = [name for name in (PERSISTENT, EVENTS, MESSAGES) if name in meta.features]
    for name, column in _columns(meta, names):
        is_text = name == MESSAGES
        filled = pc.not_equal(column, "[]") if is_text else pc.greater(pc.list_value_length(column), 0)
        if pc.any(filled).as_py():
            return True
    return bool(names) and not data_files(meta.root)


def names_places(meta: Any) -> bool:
    """Whether questions or answers of a dataset name places in the picture by coordinates.

    Args:
        meta: `LeRobotDatasetMetadata`; data files that are not on this machine are passed over.
    """
    import pyarrow.compute as pc

    for name, texts in _columns(meta, [name for name in (EVENTS, MESSAGES) if name in meta.features]):
        if name == EVENTS:
            texts = pc.struct_field(pc.list_flatten(texts), "content")
        if pc.any(pc.match_substring_regex(texts, _PLACES)).as_py():
            return True
    return False


def _columns(meta: Any, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Columns of the data files that are on this machine, one file after the other."""
    import pyarrow.parquet as pq

    for file in data_files(meta.root) if names else ():
        table = pq.read_table(file, columns=names)
        yield from zip(table.column_names, table.columns, strict=True)
