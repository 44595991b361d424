"""One table of several evaluations, as Markdown and as data."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from lerobot_gem.results.counts import Count, Pair, compare, counts
from lerobot_gem.results.eval_info import FILE_NAME, TaskResult, read_eval_info

# What success rates depend on, by the names of their distributions.
_PACKAGES = ("mujoco", "lerobot", "lerobot_policy_gem")


@dataclass(frozen=True)
class Report:
    """What evaluations found.

    Attributes:
        counts: {evaluation: its counts}.
        pairs: Every two evaluations, when they were to be paired.
        versions: {package: version} of the machine that makes the report; evaluations don't say theirs.
    """

    counts: dict[str, list[Count]]
    pairs: list[Pair]
    versions: dict[str, str]

    def data(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "evaluations": {name: [asdict(c) for c in found] for name, found in self.counts.items()},
            "pairs": [asdict(pair) for pair in self.pairs],
            "versions_where_reported": self.versions,
        }

    def markdown(self) -> str:
        """All of it, for people."""
        listens = any(c.own_object for found in self.counts.values() for c in found)
        heads = ["evaluation", "suite", "task", "episodes", "success", "95 % Wilson interval"]
        heads += ["to the task's own object instead"] * listens
        rows = []
        for name, found in self.counts.items():
            for c in found:
                task = "all" if c.task_id is None else str(c.task_id)
                rate = f"{c.successes / c.episodes:.1%}"
                row = [name, c.suite or "all", task, str(c.episodes), rate, f"{c.low:.1%} to {c.high:.1%}"]
                rows.append(row + [f"{c.own_object / c.episodes:.1%}"] * listens)
        parts = [_table(heads, rows)]
        if self.pairs:
            heads = ["first", "second", "episodes", "first alone", "second alone", "p (exact McNemar)"]
            rows = [
                [*map(str, (p.first, p.second, p.episodes, p.first_alone, p.second_alone)), f"{p.p:.2g}"]
                for p in self.pairs
            ]
            parts.append(_table(heads, rows))
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        parts.append(
            f"Versions where this table was made ({FILE_NAME} has none of the evaluation's): {versions}."
        )
        return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def make_report(evaluations: Mapping[str, Path], paired: bool = True) -> Report:
    """Count evaluations, and compare every two of them.

    Args:
        evaluations: {name: an `eval_info.json` or its folder}.
        paired: Whether they are of the same episodes.

    Raises:
        FileNotFoundError: An evaluation is not there.
        ValueError: One is another file, or two that should be paired hold different episodes.
    """
    results: dict[str, list[TaskResult]] = {
        name: read_eval_info(Path(path)) for name, path in evaluations.items()
    }
    return Report(
        {name: counts(found) for name, found in results.items()},
        [compare(a, results[a], b, results[b]) for a, b in combinations(results, 2)] if paired else [],
        _versions(),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def results_beside(folder: Path) -> str | None:
    """Markdown of the evaluations in a training run's folder or below it; None when there are none.

    Args:
        folder: E.g. lerobot-train's --output_dir.
    """
    files = sorted(folder.rglob(FILE_NAME)) if folder.is_dir() else []
    names = {str(file.parent.relative_to(folder)): file for file in files}
    return make_report(names, paired=False).markdown() if names else None
