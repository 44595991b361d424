"""An inspection as tables, which the printed report and the page share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lerobot_gem.data.check.facts import Inspection, VectorFacts
from lerobot_gem.data.check.warnings import warnings_of

# Tasks that are listed; the others are counted.
_MOST_TASKS = 15

# Columns of numbers, and how each is written. All others hold text.
_COUNTS = ("frames", "episodes", "rows", "prompts", "questions", "context", "too long")
_SHARES = (
    "frames with depth",
    "with language",
    "with action",
    "single colour",
    "invalid pixels",
    "empty frames",
)
_FORMATS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(_COUNTS, "{:,.0f}".format),
    **dict.fromkeys(_SHARES, "{:.1%}".format),
    **dict.fromkeys(("nearest", "median depth", "farthest"), "{:.3f} m".format),
    **dict.fromkeys(("median", "95 %", "longest"), "{:,.0f}".format),
    **dict.fromkeys(("min", "max"), "{:.4g}".format),
}


@dataclass(frozen=True)
class Section:
    """A table of the report.

    Attributes:
        title: Above it.
        table: Values as they were found.
        notes: Sentences under it.
    """

    title: str
    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def cells(self) -> pd.DataFrame:
        """The table as text."""

        def as_text(column: pd.Series) -> pd.Series:
            return column.map(_FORMATS.get(str(column.name), str), na_action="ignore")

        return self.table.apply(as_text).fillna("-")

    def as_text(self) -> str:
        """Title, table and notes, as lines."""
        lines = [*_flush_left(self.cells()).to_string(index=False).splitlines(), *self.notes]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in lines)])


def as_text(found: Inspection) -> str:
    """The printed report."""
    parts = [f"{summary(found)}\n{found.root}", *(section.as_text() for section in sections(found))]
    for title, texts in (
        ("Warnings", warnings_of(found)),
        ("Errors that training would raise", found.errors),
    ):
        if texts:
            parts.append("\n".join([title, *(f"  - {text}" for text in texts)]))
    return "\n\n".join([*parts, verdict(found)])


def summary(found: Inspection) -> str:
    """One line on the whole dataset."""
    return (
        f"{found.repo_id}: {found.episodes:,} episodes, {found.frames:,} frames, {found.fps:g} fps, robot "
        f"{found.robot or 'unknown'}; pictures of {found.sampled:,} frames looked at"
    )


def verdict(found: Inspection) -> str:
    """One line on whether it can be trained on."""
    errors, warnings = len(found.errors), len(warnings_of(found))
    asked = f"stage {found.asked}" if found.asked else "the stages it is made for"
    state = f"{errors} error(s)" if errors else "ready"
    return f"{state} for {asked}, {warnings} warning(s)"


def sections(found: Inspection) -> list[Section]:
    """All tables that have rows."""
    made = [
        _stages(found),
        _cameras(found),
        _depth(found),
        _language(found),
        _prompts(found),
        _questions(found),
        *(_vector(found, vector) for vector in found.vectors),
        _tasks(found),
    ]
    return [section for section in made if len(section.table)]


def _section(title: str, rows: Iterable[Mapping[str, Any]], notes: Iterable[str] = ()) -> Section:
    return Section(title, pd.DataFrame(list(rows)), list(notes))


def _stages(found: Inspection) -> Section:
    def state(lacking: str | None, errors: list[str]) -> str:
        return lacking or (f"{len(errors)} error(s)" if errors else "ready")

    rows = (
        {
            "stage": stage.name + (" (asked)" if stage.name == found.asked else ""),
            "state": state(stage.lacking, stage.errors),
            "frames with depth": stage.depth,
            "with language": stage.language,
            "with action": stage.action,
        }
        for stage in found.stages
    )
    return _section("What each stage can use", rows)


def _cameras(found: Inspection) -> Section:
    rows = (
        {
            "camera": camera.key,
            "size": _size(camera.size),
            "storage": camera.storage,
            "depth camera": camera.depth,
            "single colour": camera.one_colour,
        }
        for camera in found.cameras
    )
    return _section("Cameras", rows)


def _depth(found: Inspection) -> Section:
    rows = []
    for depth in found.depth:
        nearest, median, farthest = depth.distances or (None, None, None)
        rows.append(
            {
                "depth camera": depth.key,
                "of camera": depth.camera,
                "size": _size(depth.size),
                "storage": f"{depth.storage}, {depth.unit or 'unknown unit'}",
                "nearest": nearest,
                "median depth": median,
                "farthest": farthest,
                "invalid pixels": depth.invalid,
                "empty frames": depth.empty,
            }
        )
    return _section(
        "Depth", rows, ["Valid is 11 mm < d < 9.99 m; nearest, median and farthest are of valid pixels."]
    )


def _language(found: Inspection) -> Section:
    rows = [
        {
            "column": row.column,
            "style": row.style,
            "role": row.role,
            "about camera": row.camera,
            "rows": row.count,
        }
        for row in found.language
    ]
    if found.messages is not None:
        rows.append({"column": "messages (frames)", "rows": found.messages})
    return _section("Language in the data", rows)


def _prompts(found: Inspection) -> Section:
    rows = []
    for prompts in found.prompts:
        median, high, longest = prompts.lengths or (None, None, None)
        rows.append(
            {
                "policy, preset": f"{prompts.policy}, {prompts.preset}",
                "frames": prompts.frames,
                "prompts": prompts.prompts,
                "image tokens": " + ".join(map(str, prompts.image_tokens)),
                "median": median,
                "95 %": high,
                "longest": longest,
                "context": prompts.context,
                "too long": prompts.too_long,
            }
        )
    return _section("Prompts in tokens, images included", rows)


def _questions(found: Inspection) -> Section:
    rows, notes = [], []
    for prompts in found.prompts:
        if prompts.policy == "gem":
            counts = sorted(prompts.questions.items(), key=lambda entry: entry[0] or "")
            rows = [{"about camera": camera or "none", "questions": count} for camera, count in counts]
            if prompts.task_only:
                share = f"{prompts.task_only:,} of {prompts.frames:,} frames"
                notes = [f"In {share} the task sentence is the one answer."]
    return _section("Questions that the stage joint learns to answer", rows, notes)


def _vector(found: Inspection, vector: VectorFacts) -> Section:
    rows = (
        {"dimension": name, "min": low, "max": high, "": "stands still" if name in vector.still else ""}
        for name, low, high in zip(vector.names, vector.minimum, vector.maximum, strict=True)
    )
    notes = []
    if vector.not_finite:
        notes.append(f"{vector.not_finite:,} frame(s) hold NaN or infinite values.")
    if vector.key == "action" and found.padding is not None:
        notes.append(
            f"{found.padding:.1%} of the actions in chunks lie past the end of their episode (no loss)."
        )
    return _section(f"{vector.key}, all frames", rows, notes)


def _tasks(found: Inspection) -> Section:
    rows = (
        {"frames": task.frames, "episodes": task.episodes, "task": task.text.strip() or "(empty)"}
        for task in found.tasks[:_MOST_TASKS]
    )
    rest = found.tasks[_MOST_TASKS:]
    notes = [f"{len(rest):,} more tasks with {sum(task.frames for task in rest):,} frames."] if rest else []
    return _section("Tasks", rows, notes)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _flush_left(cells: pd.DataFrame) -> pd.DataFrame:
    """The same for pandas to print, which sets every column flush right and one space apart: text is to be flush left."""
    padded = {}
    for name, column in cells.items():
        width = 0 if name in _FORMATS else max(len(str(name)), column.str.len().max())
        padded[str(name).ljust(width) + " "] = column.str.ljust(width) + " "
    return pd.DataFrame(padded)
