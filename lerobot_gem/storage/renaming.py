"""A copy of a dataset in which features have other names; LeRobot's own `lerobot-edit-dataset` can't rename."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from lerobot_gem.storage.opening import DatasetOptions, open_dataset
from lerobot_gem.storage.output_folder import OutputDataset, check_output, publish, removed_on_error

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


def rename_features(config: RenameConfig) -> None:
    """Copy a dataset with other names; pictures, videos and numbers stay as they are.

    Raises:
        FileNotFoundError: There is no such dataset.
        FileExistsError: Something is at `output.root`, and `overwrite` is not set or it is no dataset.
        ValueError: There is no such feature, or a new name is taken.
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
    writing = root.with_name(f"{root.name}.renaming")
    shutil.rmtree(writing, ignore_errors=True)
    with removed_on_error(writing):
        shutil.copytree(dataset.root, writing, ignore=shutil.ignore_patterns(".cache"))
        _rename_json(writing / "meta" / "info.json", names, within="features")
        _rename_json(writing / "meta" / "stats.json", names)
        for folder in ("data", "meta/episodes"):
            for file in sorted((writing / folder).rglob("*.parquet")):
                _rename_columns(file, names)
        for old, new in names.items():
            if (writing / "videos" / old).exists():
                (writing / "videos" / old).rename(writing / "videos" / new)
    publish(writing, root, overwrite=config.overwrite)


def _rename_json(file: Path, names: Mapping[str, str], within: str | None = None) -> None:
    """Rename the keys of a JSON object, or of the one under a key of it."""
    if not file.exists():
        return
    content = json.loads(file.read_text())
    part = content if within is None else content[within]
    renamed = {names.get(key, key): value for key, value in part.items()}
    file.write_text(json.dumps(renamed if within is None else content | {within: renamed}, indent=4))


def _rename_columns(file: Path, names: Mapping[str, str]) -> None:
    """Rename the columns of a file of frames or episodes, and what the `datasets` library keeps of them."""
    table = pq.read_table(file)
    table = table.rename_columns([_renamed(column, names) for column in table.column_names])
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
