"""A copy of a dataset in which features have other names; LeRobot's own `lerobot-edit-dataset` can't rename."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.utils.constants import DEFAULT_FEATURES

from lerobot_gem.processing.language import EVENTS, MESSAGES, PERSISTENT, parse_messages
from lerobot_gem.storage.opening import DatasetOptions, open_dataset
from lerobot_gem.storage.output_folder import OutputDataset, check_output, published
from lerobot_gem.storage.question_kinds import QUESTIONS_FILE

type _Cells = Callable[[pa.Array, Mapping[str, str]], pa.Array]

# Where metadata of episodes say something of a feature: "stats/action/mean", "videos/observation.images.front/from_timestamp".
_PREFIXES = ("stats/", "videos/")


@dataclass
class RenameConfig:
    """What to rename.

    Attributes:
        dataset: The dataset, as a whole.
        output: The copy to write.
        names: Old name -> new name of features: `{"image": "observation.images.image", "actions": "action"}`.
        overwrite: Replace the dataset at `output.root`.
    """

    dataset: DatasetOptions
    output: OutputDataset
    names: dict[str, str]
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.dataset.episodes is not None:
            raise ValueError("dataset.episodes: a dataset is renamed as a whole; leave it out.")
        if fixed := sorted({*self.names, *self.names.values()} & DEFAULT_FEATURES.keys()):
            raise ValueError(
                f"names={self.names}: LeRobot looks for {', '.join(fixed)} by name: expected other features. Leave it out."
            )
        if nested := [name for name in self.names.values() if "/" in name]:
            raise ValueError(f"names: {nested} has a slash, which LeRobot allows in no name: choose others.")


def rename_features(config: RenameConfig) -> None:
    """Copy a dataset with other names, also where questions name a camera; pictures, videos and numbers stay as they are.

    Raises:
        FileNotFoundError: There is no such dataset.
        FileExistsError: Something is at `output.root`, and `overwrite` is not set or it is no dataset.
        ValueError: There is no such feature, a new name is taken, or an entry of the column `messages` can't be read.
    """
    root = config.output.root
    check_output(root, config.overwrite)
    dataset = open_dataset(config.dataset)
    names, features = config.names, dataset.meta.features
    unknown = sorted(names.keys() - features.keys())
    if unknown:
        raise ValueError(
            f"names: there is no {unknown} in {config.dataset.repo_id!r}: expected some of {sorted(features)}."
        )
    renamed = [names.get(name, name) for name in features]
    taken = sorted({name for name in renamed if renamed.count(name) > 1})
    if taken:
        raise ValueError(f"names: {taken} would be the name of two features: choose others.")
    with published(root, overwrite=config.overwrite) as writing:
        shutil.copytree(dataset.root, writing, ignore=shutil.ignore_patterns(".cache"))
        _rename_json(writing / "meta" / "info.json", names, within="features")
        _rename_json(writing / "meta" / "stats.json", names)
        for folder in ("data", "meta/episodes"):
            for file in sorted((writing / folder).rglob("*.parquet")):
                _rename_columns(file, names)
        if (questions := writing / QUESTIONS_FILE).exists():
            pq.write_table(_with_cells(pq.read_table(questions), {"camera": _names}, names), questions)
        _rename_folders(writing / "videos", names)


def _rename_json(file: Path, names: Mapping[str, str], within: str | None = None) -> None:
    """Rename the keys of a JSON object, or of the one under a key of it."""
    if not file.exists():
        return
    content = json.loads(file.read_text())
    part = content if within is None else content[within]
    renamed = {names.get(key, key): value for key, value in part.items()}
    file.write_text(json.dumps(renamed if within is None else content | {within: renamed}, indent=4))


def _rename_folders(videos: Path, names: Mapping[str, str]) -> None:
    """Rename the folders of cameras, by way of names that none has, since two may be exchanged."""
    moved = {
        new: (videos / old).rename(videos / f".{new}")
        for old, new in names.items()
        if (videos / old).exists()
    }
    for new, folder in moved.items():
        folder.rename(videos / new)


def _rename_columns(file: Path, names: Mapping[str, str]) -> None:
    """Rename the columns of a file of frames or episodes, what the `datasets` library keeps of them, and cameras in texts."""
    table = pq.read_table(file)
    table = table.rename_columns([_renamed(column, names) for column in table.column_names])
    table = _with_cells(table, {EVENTS: _rows, PERSISTENT: _rows, MESSAGES: _messages}, names)
    metadata = dict(table.schema.metadata or {})
    if b"huggingface" in metadata:
        kept = json.loads(metadata[b"huggingface"])
        described = kept.get("info", {}).get("features", {})
        kept.setdefault("info", {})["features"] = {
            _renamed(key, names): value for key, value in described.items()
        }
        metadata[b"huggingface"] = json.dumps(kept).encode()
    metadata.pop(b"pandas", None)  # it names columns, too, and says nothing that their types do not
    pq.write_table(table.replace_schema_metadata(metadata), file)


def _renamed(column: str, names: Mapping[str, str]) -> str:
    if column in names:
        return names[column]
    prefix = next((prefix for prefix in _PREFIXES if column.startswith(prefix)), None)
    if prefix is None:
        return column
    name, _, rest = column.removeprefix(prefix).rpartition("/")
    return f"{prefix}{names.get(name, name)}/{rest}"


# -- cells that name cameras ------------------------------------------------------------------------------------------------


def _with_cells(table: pa.Table, cells: Mapping[str, _Cells], names: Mapping[str, str]) -> pa.Table:
    """A table with other cells in the columns that it has of these."""
    for column in cells.keys() & set(table.column_names):
        place, old = table.column_names.index(column), table[column]
        new = pa.chunked_array([cells[column](part, names) for part in old.chunks], old.type)
        table = table.set_column(place, table.field(place), new)
    return table


def _names(cameras: pa.Array, names: Mapping[str, str]) -> pa.Array:
    return pa.array([names.get(camera, camera) for camera in cameras.to_pylist()], cameras.type)


def _rows(cells: pa.ListArray, names: Mapping[str, str]) -> pa.ListArray:
    """Language rows. Arrow's own parts: pyarrow can't make JSON, the type of a row's `tool_calls`, from Python objects."""
    rows = cells.values
    parts = {field.name: rows.field(field.name) for field in rows.type}
    parts["camera"] = _names(parts["camera"], names)
    renamed = pa.StructArray.from_arrays(list(parts.values()), fields=list(rows.type), mask=rows.is_null())
    return pa.ListArray.from_arrays(cells.offsets, renamed, type=cells.type, mask=cells.is_null())


def _messages(cells: pa.Array, names: Mapping[str, str]) -> pa.Array:
    """Entries of the column `messages`, which stay as they are where they name no camera that is renamed."""
    texts = []
    for text in cells.to_pylist():
        old = parse_messages(text) if text else []
        new = [
            one | {"camera": names.get(one["camera"], one["camera"])} if one.get("camera") else one
            for one in old
        ]
        texts.append(text if new == old else json.dumps(new))
    return pa.array(texts, cells.type)
