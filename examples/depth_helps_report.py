"""Tables and a plot of what depth_helps.py measured so far.

    python examples/depth_helps_report.py

writes results/depth_helps/tables.md and results/depth_helps/first_action.png.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tables import spread, success_cells, table

RESULTS = Path(__file__).parent.parent / "results" / "depth_helps"
BASELINE = "a"
# What is measured beside success.
OTHER_MEASURES = {"held_out", "questions"}


class Policy(NamedTuple):
    """Policies that differ in their seed alone."""

    setting: str
    arm: str
    demonstrations: int


def read(measured: str) -> dict[Policy, dict[int, Any]]:
    """Policy -> seed -> what was measured."""
    found: dict[Policy, dict[int, Any]] = defaultdict(dict)
    for file in sorted(RESULTS.glob(f"*/*.{measured}.json")):
        arm, demonstrations, seed = file.name.split(".")[0].split("_")
        policy = Policy(file.parent.name, arm, int(demonstrations))
        found[policy][int(seed.removeprefix("s"))] = json.loads(file.read_text())
    return dict(found)


def rows_of_success(measured: str) -> Iterator[list[str]]:
    """Successes over all seeds, with a Wilson interval, and the test on pairs of layout and seed."""
    found = read(measured)
    for policy, seeds in found.items():
        baseline = {} if policy.arm == BASELINE else found.get(policy._replace(arm=BASELINE), {})
        solved, other = (
            {seed: result["solved"] for seed, result in of_arm.items()} for of_arm in (seeds, baseline)
        )
        yield [policy.setting, str(policy.demonstrations), policy.arm, *success_cells(solved, other)]


def rows_of_errors() -> Iterator[list[str]]:
    """Means over seeds, and the range over seeds where there are several."""
    for policy, seeds in read("held_out").items():
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


def rows_of_questions() -> Iterator[list[str]]:
    """One row for each kind of question, what is best without looking in front of the pre-trained models' scores."""
    models = {file.name.split(".")[0]: json.loads(file.read_text()) for file in questions_files()}
    by_kind = {
        name: {kind["kind"]: kind["metrics"][0] for kind in found["scores"]} for name, found in models.items()
    }
    for kind, metric in next(iter(by_kind.values()), {}).items():
        scores = [f"{found[kind]['score']:.2f}" for found in by_kind.values()]
        yield [kind, metric["metric"], str(metric["n"]), f"{metric['baseline']:.2f}", *scores]


def questions_files() -> list[Path]:
    """Scores of the pre-trained models."""
    return sorted(RESULTS.glob("plain/*.questions.json"))


def tables() -> str:
    """All tables."""
    conditions = sorted({file.name.split(".")[1] for file in RESULTS.glob("*/*.json")} - OTHER_MEASURES)
    parts = ["# Does depth help? What examples/depth_helps.py measured so far", ""]
    parts += [
        "Error of the first action on held-out scenes (full scale is 1), and depth that a linear map reads (R2):",
        "",
    ]
    parts.append(
        table(
            "setting | demonstrations | arm | seeds | x and y | z | depth, by camera",
            rows_of_errors(),
        )
    )
    for condition in conditions:
        parts += [f"Success, {condition.replace('_', ' ')}:", ""]
        header = "setting | demonstrations | arm | solved | 95 % Wilson | % by seed | it alone : a alone"
        parts.append(table(header, rows_of_success(condition)))
    names = " | ".join(file.name.split(".")[0] for file in questions_files())
    parts += ["Questions about unseen scenes, by pre-training:", ""]
    parts.append(table(f"kind | score | n | without looking | {names}", rows_of_questions()))
    return "\n".join(parts)


def plot() -> None:
    """Error of the first action by arm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {policy: seeds for policy, seeds in read("held_out").items() if policy.setting == "plain"}
    amounts = sorted({policy.demonstrations for policy in found})
    figure, axes = plt.subplots(
        1, len(amounts), figsize=(4.5 * len(amounts), 3.2), sharey=True, squeeze=False
    )
    for axis, amount in zip(axes[0], amounts, strict=True):
        arms = sorted(policy.arm for policy in found if policy.demonstrations == amount)
        for place, arm in enumerate(arms):
            seeds = found[Policy("plain", arm, amount)]
            values = [result["first_action"]["xy"]["mean"] for result in seeds.values()]
            axis.bar(place, statistics.mean(values), color="tab:orange" if arm[0] in "ce" else "tab:gray")
            axis.plot([place] * len(values), values, "k.", markersize=4)
        axis.axhline(
            next(iter(next(iter(found.values())).values()))["first_action"]["xy"]["guess"], ls=":", c="k"
        )
        axis.set_xticks(range(len(arms)), arms)
        axis.set_title(f"{amount} demonstrations")
    axes[0][0].set_ylabel("error of the first action, x and y")
    figure.tight_layout()
    figure.savefig(RESULTS / "first_action.png", dpi=120)


def main() -> None:
    text = tables()
    (RESULTS / "tables.md").write_text(text)
    plot()
    print(text)


if __name__ == "__main__":
    main()
