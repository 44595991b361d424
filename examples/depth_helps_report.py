"""Tables and a plot of what depth_helps.py measured so far.

    python examples/depth_helps_report.py
    python examples/depth_helps_report.py --results_dir=results/depth_helps    # of what this repository keeps

writes tables.md and arms.png beside the measurements. With --seeds it only prints the tables, of these seeds alone.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Container, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from depth_helps import ARMS, HELD_OUT_FULL, RESULTS
from episodes_needed import independent_share
from tables import about_tests, over_seeds, spread, success_cells, table

from lerobot_gem.results.counts import wilson

# Arms that all others are compared with, layout by layout.
COMPARED = ("a", "b", "c")
# The arms of the plot, and what they paint; all arms are in the tables.
NAMES = {
    "a": "a: no pre-training",
    "b": "b: language alone",
    "c": "c: language and depth (GEM)",
    "d": "d: language and RGB",
    "e": "e: as c, depth beside actions too",
}
PAINTED_COLOURS = {None: "tab:gray", "depth": "tab:orange", "rgb": "tab:blue"}
# Measurements of errors, and in which pictures.
ERRORS = {
    "held_out": "in the pictures of pre-training, whose meshes have few triangles",
    HELD_OUT_FULL: "with whole meshes, as where the policies act",
}
# What is measured beside success.
OTHER_MEASURES = {*ERRORS, "questions"}


class Policy(NamedTuple):
    """Policies that differ in their seed alone."""

    setting: str
    arm: str
    demonstrations: int


class Measurements:
    """What depth_helps.py measured.

    Args:
        folder: Of the measurements.
        seeds: The only ones that are read; None for all.
    """

    def __init__(self, folder: Path, seeds: Container[int] | None = None) -> None:
        self._folder = folder
        self._seeds = seeds

    def conditions(self) -> list[str]:
        """Where policies were evaluated."""
        return sorted({file.name.split(".")[1] for file in self._folder.glob("*/*.json")} - OTHER_MEASURES)

    def of_policies(self, measured: str) -> dict[Policy, dict[int, Any]]:
        """Policy -> seed -> what was measured."""
        found: dict[Policy, dict[int, Any]] = defaultdict(dict)
        for setting, name, seed, result in self._read(measured):
            arm, demonstrations = name.split("_")
            found[Policy(setting, arm, int(demonstrations))][seed] = result
        return dict(found)

    def questions(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Setting -> pre-training -> what each of its seeds scored, by kind of question."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for setting, name, _, result in self._read("questions"):
            found[setting][name].append({kind["kind"]: kind["metrics"][0] for kind in result["scores"]})
        return {setting: dict(models) for setting, models in found.items()}

    def _read(self, measured: str) -> Iterator[tuple[str, str, int, Any]]:
        """Setting, name without seed, seed and result."""
        for file in sorted(self._folder.glob(f"*/*.{measured}.json")):
            name, _, number = file.name.split(".")[0].rpartition("_s")
            if self._seeds is None or int(number) in self._seeds:
                yield file.parent.name, name, int(number), json.loads(file.read_text())


def rows_of_success(measurements: Measurements, condition: str) -> Iterator[list[str]]:
    """Successes over all seeds, with a Wilson interval, and the tests on pairs of layout and seed."""
    solved = {
        policy: {seed: result["solved"] for seed, result in seeds.items()}
        for policy, seeds in measurements.of_policies(condition).items()
    }
    for policy, seeds in solved.items():
        against = [success_cells(seeds, baseline) for baseline in baselines(policy, solved)]
        pairs = [cells[-1] for cells in against]
        yield [policy.setting, str(policy.demonstrations), policy.arm, *against[0][:-1], *pairs]


def baselines(policy: Policy, found: dict[Policy, dict[int, Any]]) -> Iterator[dict[int, Any]]:
    """Of each arm that others are compared with, what its policy of the same kind has by seed; nothing for the arm itself."""
    for arm in COMPARED:
        yield {} if policy.arm == arm else found.get(policy._replace(arm=arm), {})


def shares_of_pairs(measurements: Measurements) -> list[float]:
    """Layouts that exactly one of two policies solved, over what it would be if their successes had nothing to do with each other.

    Of all policies with the same demonstrations and seed that solved some; examples/episodes_needed.py says what it is for.
    """
    alike: dict[Any, list[list[bool]]] = defaultdict(list)
    for policy, seeds in measurements.of_policies("as_trained").items():
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


def rows_of_errors(measurements: Measurements, scenes: str) -> Iterator[list[str]]:
    """Means over seeds, and the range over seeds where there are several; tests over seeds of the error in x and y."""
    found = measurements.of_policies(scenes)
    in_plane = {
        policy: {seed: result["first_action"]["xy"]["mean"] for seed, result in seeds.items()}
        for policy, seeds in found.items()
    }
    for policy, seeds in found.items():
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
            *(over_seeds(in_plane[policy], baseline) for baseline in baselines(policy, in_plane)),
        ]


def rows_of_questions(models: dict[str, list[dict[str, Any]]]) -> Iterator[list[str]]:
    """One row for each kind of question: what is best without looking, and the mean over all questions of each pre-training's seeds."""
    all_seeds = [seed for seeds in models.values() for seed in seeds]
    for kind, metric in all_seeds[0].items():
        cells = [
            f"{mean_over_questions(seeds, kind, 'score'):.2f} ({sum(seed[kind]['n'] for seed in seeds)})"
            for seeds in models.values()
        ]
        yield [kind, metric["metric"], f"{mean_over_questions(all_seeds, kind, 'baseline'):.2f}", *cells]


def mean_over_questions(seeds: list[dict[str, Any]], kind: str, value: str) -> float:
    """Of several seeds, which were asked different numbers of questions."""
    counts = [seed[kind]["n"] for seed in seeds]
    return statistics.fmean((seed[kind][value] for seed in seeds), counts)


def tables(measurements: Measurements) -> str:
    """All tables."""
    parts = ["# Does depth help? What examples/depth_helps.py measured so far", ""]
    for scenes, pictures in ERRORS.items():
        parts += [
            f"Error of the first action on held-out scenes (full scale is 1), depth that a linear map reads (R2), and paired t-tests over seeds of "
            f"the error in x and y, {pictures}:",
            "",
        ]
        against = " | ".join(f"against {arm}" for arm in COMPARED)
        header = f"setting | demonstrations | arm | seeds | x and y | z | depth, by camera | {against}"
        parts.append(table(header, rows_of_errors(measurements, scenes)))
    parts += [f"Success below: {about_tests('a')}", ""]
    for condition in measurements.conditions():
        parts += [f"Success, {condition.replace('_', ' ')}:", ""]
        against = " | ".join(f"won : lost against {arm}" for arm in COMPARED)
        header = f"setting | demonstrations | arm | solved | 95 % Wilson | % by seed | {against}"
        parts.append(table(header, rows_of_success(measurements, condition)))
    shares = shares_of_pairs(measurements)
    if shares:
        low, median, high = min(shares), statistics.median(shares), max(shares)
        parts += [
            f"Layouts that exactly one of two policies solved, as trained, over what independent successes would give: {low:.2f} to {high:.2f}, "
            f"median {median:.2f}, of {len(shares)} pairs of policies with the same demonstrations and seed.",
            "",
        ]
    for setting, models in measurements.questions().items():
        names = " | ".join(
            f"{name}, {len(seeds)} {'seeds' if seeds[1:] else 'seed'}" for name, seeds in models.items()
        )
        parts += [
            f"Questions about unseen scenes, setting {setting}, by pre-training: mean score (questions, over all seeds):",
            "",
        ]
        parts.append(table(f"kind | score | without looking | {names}", rows_of_questions(models)))
    return "\n".join(parts)


def plot(measurements: Measurements, file: Path) -> None:
    """Success and the error of the first action, by arm: bars over all seeds, a point for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    errors, successes = (measurements.of_policies(measured) for measured in ("held_out", "as_trained"))
    policies = [
        policy
        for policy in successes
        if policy.setting == "plain" and policy.arm in NAMES and policy in errors
    ]
    amounts = sorted({policy.demonstrations for policy in policies}, reverse=True)
    heights = [1 + sum(policy.demonstrations == amount for policy in policies) for amount in amounts]
    figure, axes = plt.subplots(
        len(amounts), 2, figsize=(10, 0.42 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for (left, right), amount in zip(axes, amounts, strict=True):
        shown = sorted((p for p in policies if p.demonstrations == amount), key=lambda p: p.arm, reverse=True)
        for place, policy in enumerate(shown):
            pretraining = ARMS[policy.arm].pretraining
            color = PAINTED_COLOURS[pretraining and pretraining.painted]
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
        right.set_title("error of the first action, x and y", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--results_dir", type=Path, default=RESULTS, help="folder of the measurements")
    arguments.add_argument("--seeds", type=int, nargs="+", help="the only ones that are read")
    options = arguments.parse_args()
    measurements = Measurements(options.results_dir, options.seeds)
    text = tables(measurements)
    if options.seeds is None:
        (options.results_dir / "tables.md").write_text(text)
        plot(measurements, options.results_dir / "arms.png")
    print(text)


if __name__ == "__main__":
    main()
