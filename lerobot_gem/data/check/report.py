"""An inspection as tables of text, which the printed page and the HTML page share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lerobot_gem.data.check.facts import Inspection, PromptFacts, VectorFacts

# Rows of tasks and dimensions that fit a page.
_MOST_TASKS = 15


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: Above it.
        header: Names of the columns.
        rows: Cells.
        notes: Sentences under it.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)


def summary(found: Inspection) -> str:
    """One line on the whole dataset."""
    sampled = f"pictures of {found.sampled:,} frames looked at"
    return (
        f"{found.repo_id}: {found.episodes:,} episodes, {found.frames:,} frames, {found.fps:g} fps, robot "
        f"{found.robot or 'unknown'}; {sampled}"
    )


def verdict(found: Inspection) -> str:
    """One line on whether it can be trained on."""
    errors, warnings = len(found.errors), len(found.warnings)
    asked = f"stage {found.asked}" if found.asked else "the stages it is made for"
    state = f"{errors} error(s)" if errors else "ready"
    return f"{state} for {asked}, {warnings} warning(s)"


def tables(found: Inspection) -> list[Table]:
    """All tables that have rows."""
    made = [_stages(found), _cameras(found), _depth(found), _rows(found), _prompts(found)]
    made += [_questions(found), *(_vector(found, vector) for vector in found.vectors), _tasks(found)]
    return [table for table in made if table.rows]


def as_text(found: Inspection) -> str:
    """The printed page."""
    lines = [summary(found), str(found.root), ""]
    for table in tables(found):
        lines += [
            table.title,
            *_aligned([table.header, *table.rows]),
            *(f"  {note}" for note in table.notes),
            "",
        ]
    for title, texts in (("Warnings", found.warnings), ("Errors that training would raise", found.errors)):
        if texts:
            lines += [title, *(f"  - {text}" for text in texts), ""]
    return "\n".join([*lines, verdict(found)])


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _stages(found: Inspection) -> Table:
    rows = []
    for stage in found.stages:
        if stage.errors and stage.lacking is None:
            state = f"{len(stage.errors)} error(s)"
        else:
            state = stage.lacking or "ready"
        shares = (
            "-" if share is None else f"{share:.1%}" for share in (stage.depth, stage.language, stage.action)
        )
        rows.append((stage.name + (" (asked)" if stage.name == found.asked else ""), state, *shares))
    header = ("stage", "state", "frames with depth", "with language", "with action")
    return Table("What each stage can use", header, rows)


def _cameras(found: Inspection) -> Table:
    rows = [
        (camera.key, _size(camera.size), camera.storage, camera.depth or "-", f"{camera.one_colour:.1%}")
        for camera in found.cameras
    ]
    return Table("Cameras", ("camera", "size", "storage", "depth camera", "single colour"), rows)


def _depth(found: Inspection) -> Table:
    rows = []
    for depth in found.depth:
        distances = (f"{distance:.3f} m" for distance in depth.spread) if depth.spread else ("-",) * 3
        rows.append(
            (
                depth.key,
                depth.camera or "-",
                _size(depth.size),
                f"{depth.storage}, {depth.unit or 'unknown unit'}",
                *distances,
                f"{depth.invalid:.1%}",
                f"{depth.empty:.1%}",
            )
        )
    header = (
        "depth camera",
        "of camera",
        "size",
        "storage",
        "min",
        "median",
        "max",
        "invalid pixels",
        "empty frames",
    )
    return Table(
        "Depth", header, rows, ["Valid is 11 mm < d < 9.99 m; min, median and max are of valid pixels."]
    )


def _rows(found: Inspection) -> Table:
    rows = [
        (row.column, row.style or "-", row.role, row.camera or "-", f"{row.count:,}") for row in found.rows
    ]
    if found.messages is not None:
        rows.append(("messages", "-", "-", "-", f"{found.messages:,} frames"))
    return Table("Language in the data", ("column", "style", "role", "camera", "rows"), rows)


def _prompts(found: Inspection) -> Table:
    rows = []
    for prompts in found.prompts:
        lengths = (f"{length:,.0f}" for length in prompts.lengths) if prompts.lengths else ("-",) * 3
        images = " + ".join(str(tokens) for tokens in prompts.image_tokens)
        rows.append(
            (
                f"{prompts.policy}, {prompts.preset}",
                f"{prompts.frames:,}",
                f"{prompts.prompts:,}",
                images,
                *lengths,
                f"{prompts.context:,}",
                f"{prompts.too_long:,}",
            )
        )
    header = (
        "policy, preset",
        "frames",
        "prompts",
        "image tokens",
        "median",
        "95 %",
        "longest",
        "context",
        "too long",
    )
    return Table("Prompts in tokens, images included", header, rows)


def _questions(found: Inspection) -> Table:
    gem = next((prompts for prompts in found.prompts if prompts.policy == "gem"), None)
    if gem is None:
        return Table("Questions", (), [])
    by_camera = sorted(gem.questions.items(), key=lambda entry: entry[0] or "")
    rows = [(camera or "none", f"{count:,}") for camera, count in by_camera]
    return Table(
        "Questions that the stage joint learns to answer", ("about camera", "questions"), rows, _asides(gem)
    )


def _asides(gem: PromptFacts) -> list[str]:
    if not gem.task_only:
        return []
    return [f"In {gem.task_only:,} of {gem.frames:,} frames the task sentence is the one answer."]


def _vector(found: Inspection, vector: VectorFacts) -> Table:
    rows = [
        (name, f"{low:.4g}", f"{high:.4g}", "constant" if low == high else "")
        for name, low, high in zip(vector.names, vector.minimum, vector.maximum, strict=True)
    ]
    notes = []
    if vector.key == "action" and found.padding is not None:
        notes = [f"{found.padding:.1%} of the actions in chunks lie past the end of their episode (no loss)."]
    return Table(f"{vector.key}, all frames", ("dimension", "min", "max", ""), rows, notes)


def _tasks(found: Inspection) -> Table:
    rows = [
        (f"{task.frames:,}", f"{task.episodes:,}", task.text.strip() or "(empty)")
        for task in found.tasks[:_MOST_TASKS]
    ]
    rest = found.tasks[_MOST_TASKS:]
    notes = [f"{len(rest):,} more tasks with {sum(task.frames for task in rest):,} frames."] if rest else []
    return Table("Tasks", ("frames", "episodes", "task"), rows, notes)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
