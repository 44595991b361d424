"""How much a record of somebody else's may ask for, and from where.

Each limit is far beyond what a record of use has. What is beyond it is skipped and counted, like any other fault.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Of one record in its file; its texts, paths and other fields together.
MOST_RECORD_BYTES = 2**22
# Lists and objects within each other.
DEEPEST_NESTING = 32
# Characters of one question or answer, some 8,000 tokens.
LONGEST_TEXT = 2**15
# Of one picture's file, which goes into the dataset as it is: as large as any picture without compression may be.
MOST_FILE_BYTES = 2**28


def is_within(file: Path, folder: Path) -> bool:
    """Whether a path leads to a place within a folder, wherever symbolic links on the way lead."""
    return file.resolve().is_relative_to(folder.resolve())


def is_too_deep(value: Any) -> bool:
    """Whether a JSON value has more lists and objects within each other than `DEEPEST_NESTING`."""
    level: list[Any] = [value]
    for _ in range(DEEPEST_NESTING):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return False
    return any(isinstance(outer, dict | list) for outer in level)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
