"""Tables and a plot of what depth_helps.py measured so far.

    python examples/depth_helps_report.py
    python examples/depth_helps_report.py --results_dir=results/depth_helps    # of what this repository keeps

writes tables.md and arms.png beside the measurements.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from depth_helps import RESULTS
from episodes_needed import independent_share
from tables import about_tests, spread, success_cells, table

from lerobot_gem.results.counts import wilson

# Arms that all others are compared with, layout by layout.
COMPARED = ("a", "c")
# Pre-training of each arm (depth_helps.py), for a reader of the plot.
NAMES = {
    "a": "a: none",
    "b": "b: language alone",
    "c": "c: language and depth (GEM)",
    "c01": "c01: the same, depth weighted 0.1",
    "c900": "c900: as c, fewer steps",
    "c5000": "c5000: as c, more steps",
    "d": "d: language and RGB",
    "d01": "d01: the same, RGB weighted 0.1",
    "e": "e: as c, depth learned on",
    "f": "f: none, more steps of actions",
    "g": "g: as c, as many steps of actions as f",
}
# What is measured beside success.
OTHER_MEASURES = {"held_out", "questions"}


class Policy(NamedTuple):
    """Policies that differ in their seed alone."""

    setting: str
    arm: str
    demonstrations: int


def read(results: Path, measured: str) -> dict[Policy, dict[int, Any]]:
    """Policy -> seed -> what was measured."""
    found: dict[Policy, dict[int, Any]] = defaultdict(dict)
    for file in sorted(results.glob(f"*/*.{measured}.json")):
        arm, demonstrations, seed = file.name.split(".")[0].split("_")
        policy = Policy(file.parent.name, arm, int(demonstrations))
        found[policy][int(seed.removeprefix("s"))] = json.loads(file.read_text())
    return dict(found)


def rows_of_success(results: Path, measured: str) -> Iterator[list[str]]:
    """Successes over all seeds, with a Wilson interval, and the tests on pairs of layout and seed."""
    solved = {
        policy: {seed: result["solved"] for seed, result in seeds.items()}
        for policy, seeds in read(results, measured).items()
    }
    for policy, seeds in solved.items():
        against = [
            success_cells(seeds, {} if policy.arm == arm else solved.get(policy._replace(arm=arm), {}))
            for arm in COMPARED
        ]
        pairs = [cells[-1] for cells in against]
        yield [policy.setting, str(policy.demonstrations), policy.arm, *against[0][:-1], *pairs]


def shares_of_pairs(results: Path) -> list[float]:
    """Layouts that exactly one of two policies solved, over what it would be if their successes had nothing to do with each other.

    Of all policies with the same demonstrations and seed that solved some; examples/episodes_needed.py says what it is for.
    """
    alike: dict[Any, list[list[bool]]] = defaultdict(list)
    for policy, seeds in read(results, "as_trained").items():
        for seed, result in seeds.items():
            if any(result["solved"]):
                alike[policy.setting, policy.demonstrations, seed].append(result["solved"])
    shares = []
    for solved in alike.values():
        for one, other in combinations(solved, 2):
            expected = independent_share(statistics.mean(one), statistics.mean(other))
            found = statistics.mean(a != b for a, b in zip(one, other, strict=True))
            shares.append(found / expected)
    return shares


def rows_of_errors(results: Path) -> Iterator[list[str]]:
    """Means over seeds, and the range over seeds where there are several."""
    for policy, seeds in read(results, "held_out").items():
        actions = [result["first_action"] for result in seeds.values()]
        cameras = {camera: None for result in seeds.values() for camera in result["depth_probe"]}
        yield [
            policy.setting,
            str(policy.demonstrations),
            policy.arm,
            str(len(seeds)),
            *(spread([action[axis]["mean"] for action in actions]) for axis in ("xy", "z")),
            " / ".join(
                spread([result["depth_probe"][camera]["r2"] for result in seeds.values()])
                for camera in cameras
            ),
        ]


def questions(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Pre-training -> what each of its seeds scored, by kind of question."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(results.glob("plain/*.questions.json")):
        scores = json.loads(file.read_text())["scores"]
        pretraining, _, _ = file.name.split(".")[0].rpartition("_s")
        found[pretraining].append({kind["kind"]: kind["metrics"][0] for kind in scores})
    return dict(found)


def rows_of_questions(results: Path) -> Iterator[list[str]]:
    """One row for each kind of question: what is best without looking, and the mean over all questions of each pre-training's seeds."""
    models = questions(results)
    for kind, metric in next(iter(models.values()), [{}])[-1].items():
        cells = []
        for seeds in models.values():
            asked = [seed[kind]["n"] for seed in seeds]
            right = [seed[kind]["n"] * seed[kind]["score"] for seed in seeds]
            cells.append(f"{sum(right) / sum(asked):.2f} ({sum(asked)})")
        yield [kind, metric["metric"], f"{metric['baseline']:.2f}", *cells]


def tables(results: Path) -> str:
    """All tables."""
    conditions = sorted({file.name.split(".")[1] for file in results.glob("*/*.json")} - OTHER_MEASURES)
    parts = ["# Does depth help? What examples/depth_helps.py measured so far", ""]
    parts += [
        "Error of the first action on held-out scenes (full scale is 1), and depth that a linear map reads (R2):",
        "",
    ]
    parts.append(
        table(
            "setting | demonstrations | arm | seeds | x and y | z | depth, by camera",
            rows_of_errors(results),
        )
    )
    parts += [f"Success below: {about_tests('a')}", ""]
    for condition in conditions:
        parts += [f"Success, {condition.replace('_', ' ')}:", ""]
        header = "setting | demonstrations | arm | solved | 95 % Wilson | % by seed | it alone : a alone | it alone : c alone"
        parts.append(table(header, rows_of_success(results, condition)))
    shares = shares_of_pairs(results)
    if shares:
        low, median, high = min(shares), statistics.median(shares), max(shares)
        parts += [
            f"Layouts that exactly one of two policies solved, as trained, over what independent successes would give: {low:.2f} to {high:.2f}, "
            f"median {median:.2f}, of {len(shares)} pairs of policies with the same demonstrations and seed.",
            "",
        ]
    names = " | ".join(
        f"{name}, {len(seeds)} {'seeds' if seeds[1:] else 'seed'}"
        for name, seeds in questions(results).items()
    )
    parts += ["Questions about unseen scenes, by pre-training: mean score (questions, over all seeds):", ""]
    parts.append(table(f"kind | score | without looking | {names}", rows_of_questions(results)))
    return "\n".join(parts)


def plot(results: Path) -> None:
    """Success and the error of the first action, by arm: bars over all seeds, a point for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    errors, successes = read(results, "held_out"), read(results, "as_trained")
    policies = [policy for policy in successes if policy.setting == "plain" and policy in errors]
    amounts = sorted({policy.demonstrations for policy in policies}, reverse=True)
    figure, axes = plt.subplots(len(amounts), 2, figsize=(10, 3 * len(amounts)), squeeze=False)
    for (left, right), amount in zip(axes, amounts, strict=True):
        shown = sorted((p for p in policies if p.demonstrations == amount), key=lambda p: p.arm, reverse=True)
        for place, policy in enumerate(shown):
            color = "tab:orange" if policy.arm[0] in "ce" else "tab:gray"
            by_seed = [result["solved"] for result in successes[policy].values()]
            solved = [outcome for of_seed in by_seed for outcome in of_seed]
            share, bounds = statistics.mean(solved), wilson(sum(solved), len(solved))
            left.barh(
                place, share, color=color, xerr=[[share - bounds[0]], [bounds[1] - share]], ecolor="black"
            )
            left.text(1.02, place, f"{sum(solved)} of {len(solved)}", va="center")
            actions = [result["first_action"]["xy"] for result in errors[policy].values()]
            right.barh(place, statistics.mean(action["mean"] for action in actions), color=color)
            for axis, values in (
                (left, [statistics.mean(of_seed) for of_seed in by_seed]),
                (right, [action["mean"] for action in actions]),
            ):
                axis.plot(values, [place] * len(values), "k.", markersize=4)
        left.set_yticks(range(len(shown)), [NAMES[policy.arm] for policy in shown])
        left.set_xlim(0, 1)
        left.set_title(f"{amount} demonstrations: unseen layouts solved", fontsize=10)
        right.set_yticks([])
        right.axvline(actions[0]["guess"], ls=":", c="k")
        right.set_title("error of the first action (dotted: without looking)", fontsize=10)
    figure.tight_layout()
    figure.savefig(results / "arms.png", dpi=100)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--results_dir", type=Path, default=RESULTS, help="folder of the measurements")
    results = arguments.parse_args().results_dir
    text = tables(results)
    (results / "tables.md").write_text(text)
    plot(results)
    print(text)


if __name__ == "__main__":
    main()
