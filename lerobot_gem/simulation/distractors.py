"""Objects that a task does not know, added to its scene: those of the suite's other tasks."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# What libero_object's tasks pick up.
_GROCERIES = (
    "alphabet_soup",
    "bbq_sauce",
    "butter",
    "chocolate_pudding",
    "cream_cheese",
    "ketchup",
    "milk",
    "orange_juice",
    "salad_dressing",
    "tomato_sauce",
)
DISTRACTORS = {"libero_object": _GROCERIES}


def distractor_names(suite: str, bddl: str, number: int) -> list[str]:
    """Names of the objects that a scene gets.

    Args:
        suite: LIBERO suite.
        bddl: The task's definition.
        number: Of objects.

    Returns:
        Names as LIBERO gives them, e.g. "ketchup_1".

    Raises:
        ValueError: There are no such objects for the suite, or fewer.
    """
    if number == 0:
        return []
    if suite not in DISTRACTORS:
        raise ValueError(f"There are distractors for {', '.join(DISTRACTORS)}, not for {suite}.")
    missing = [category for category in DISTRACTORS[suite] if f" - {category}\n" not in bddl]
    if not 0 <= number <= len(missing):
        raise ValueError(
            f"distractors={number}: expected 0 to {len(missing)}, since {suite} has as many objects that are not in the task's "
            "own scene."
        )
    return [f"{category}_1" for category in missing[:number]]


def with_objects(bddl: str, names: list[str]) -> str:
    """A task's definition with more objects on its floor, behind its own in every list.

    Args:
        bddl: The task's definition.
        names: Of the objects, e.g. "ketchup_1".
    """
    for number, name in enumerate(names):
        region = f"distractor_region_{number}"
        # Somewhere; each layout places them anew.
        x, y = 0.4, 0.3 * number
        ranges = f"(:ranges (({x} {y} {x + 0.01} {y + 0.01})))"
        bddl = _insert(bddl, ":regions", f"({region} (:target floor) {ranges})")
        bddl = _insert(bddl, ":init", f"(On {name} floor_{region})")
        bddl = _append(bddl, ":objects", f"{name} - {name.rsplit('_', 1)[0]}")
    return bddl


def _insert(bddl: str, section: str, line: str) -> str:
    return bddl.replace(f"({section}\n", f"({section}\n    {line}\n", 1)


def _append(bddl: str, section: str, line: str) -> str:
    """Add a line to a section that holds no brackets."""
    return re.sub(rf"(\({section}[^)]*)\)", rf"\1  {line}\n  )", bddl, count=1)


@contextmanager
def definition_with(bddl_file: Path, suite: str, number: int) -> Iterator[tuple[Path, list[str]]]:
    """A file with the task's definition, extended by distractors, while it is read; and their names.

    Args:
        bddl_file: The task's own definition.
        suite: LIBERO suite.
        number: Of distractors; with 0 the file is the task's own.
    """
    bddl = bddl_file.read_text()
    names = distractor_names(suite, bddl, number)
    if not names:
        yield bddl_file, names
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / bddl_file.name
        file.write_text(with_objects(bddl, names))
        yield file, names
