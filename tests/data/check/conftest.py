"""What is done to datasets before they are checked, and a policy to check them for."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_gem.policies.gem.configuration_gem import GemConfig


def gem(**settings) -> GemConfig:
    return GemConfig(
        **{"preset": "tiny", "device": "cpu", "dtype": "float32", "allow_untrained": True, **settings}
    )


def data_file(root: Path) -> Path:
    """The one file of frames that a small dataset has."""
    [file] = (root / "data").glob("*/*.parquet")
    return file


def edit_column(column: str, change: Callable[[list[Any]], Sequence[Any]]) -> Callable[[Path], None]:
    """Change all cells of a column."""

    def spoil(root: Path) -> None:
        table = pq.read_table(data_file(root))
        position = table.schema.get_field_index(column)
        field = table.schema.field(position)
        values = pa.array(change(table.column(column).to_pylist()), type=field.type)
        pq.write_table(table.set_column(position, field, values), data_file(root))

    return spoil


def edit_cell(column: str, frame: int, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change one cell of a column."""
    return edit_column(column, lambda cells: [*cells[:frame], change(cells[frame]), *cells[frame + 1 :]])


def edit_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change a file of metadata."""

    def spoil(root: Path) -> None:
        file = root / "meta" / name
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def edit_feature(key: str, **values: Any) -> Callable[[Path], None]:
    """Change what meta/info.json says of a feature."""
    return edit_json("info.json", lambda info: info["features"][key].update(values))
