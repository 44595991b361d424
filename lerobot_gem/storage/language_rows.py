"""The language of a dataset on disk: its rows by frame index, and whether it names places in the picture."""

from typing import Any

import numpy as np

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
    """The language rows of a dataset on disk, by frame index; memory-mapped, without any other column.

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
        self._indices, self._episodes, self._timestamps = (
            np.asarray(table.data.column(name)) for name in ("index", "episode_index", "timestamp")
        )
        self._order = np.argsort(self._indices, kind="stable")
        # Arrow's own columns: formatting a row through `datasets` takes several times as long as reading it.
        self._columns = {
            name: table.data.column(name) for name in (PERSISTENT, EVENTS) if name in table.column_names
        }
        self._check_cameras(meta)

    def rows(
        self, index: int, episode: int | None = None, timestamp: float | None = None
    ) -> tuple[list[Row], list[Row]]:
        """Persistent and event rows of a frame.

        Args:
            index: Of the frame in the whole dataset.
            episode: Its episode, which must be that on disk; None where it is not known.
            timestamp: Its time in the episode in seconds, likewise.

        Raises:
            ValueError: There is no such frame, or it is of another episode or time: the frame is from another dataset.
        """
        start = int(np.searchsorted(self._indices, index, sorter=self._order))
        found = int(self._order[start]) if start < len(self._order) else -1
        if found < 0 or self._indices[found] != index:
            raise ValueError(f"Frame {index} is not in {self._repo_id!r}, {_EXPECTED}")
        known = {"episode": int(self._episodes[found]), "timestamp": round(float(self._timestamps[found]), 4)}
        asked = {"episode": episode, "timestamp": None if timestamp is None else round(timestamp, 4)}
        if any(value not in (None, known[name]) for name, value in asked.items()):
            raise ValueError(
                f"Frame {index} has {known} in {self._repo_id!r}, but {asked} in the batch: it is of another dataset than that "
                + _EXPECTED
            )
        row = {name: column[found].as_py() for name, column in self._columns.items()}
        return row.get(PERSISTENT) or [], row.get(EVENTS) or []

    def _check_cameras(self, meta: Any) -> None:
        import pyarrow.compute as pc

        for name, column in self._columns.items():
            rows = pc.list_flatten(column)
            named = set(pc.unique(pc.struct_field(rows, "camera")).to_pylist()) - {None}
            check_cameras(named, meta.camera_keys, f"the rows of {name!r} in {meta.repo_id!r}")


def bound_language(meta: Any) -> BoundLanguage:
    """What the dataset that `meta` describes says to the step that reads its language.

    Raises:
        ValueError: See `LanguageTable`.
    """
    return BoundLanguage(LanguageTable(meta) if meta.has_language_columns else None, meta.camera_keys)


def names_places(meta: Any) -> bool:
    """Whether questions or answers of a dataset name places in the picture by coordinates.

    Args:
        meta: `LeRobotDatasetMetadata`; data files that are not on this machine are passed over.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = [name for name in (EVENTS, MESSAGES) if name in meta.features]
    for file in data_files(meta.root) if columns else ():
        table = pq.read_table(file, columns=columns)
        for name in table.column_names:
            texts = table[name]
            if name == EVENTS:
                texts = pc.struct_field(pc.list_flatten(texts), "content")
            if pc.any(pc.match_substring_regex(texts, _PLACES)).as_py():
                return True
    return False
