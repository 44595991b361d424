"""Flow, tokens, both, insulated, keys and values: what each way to learn actions gives, cell by cell.

    python examples/action_experts.py --seeds 0 1 2
    python examples/action_experts.py --start=outputs/depth_helps/plain/depth2400_s1/stage3/checkpoints/last/pretrained_model
    python examples/action_experts.py --steps=20 --episodes=2 --seeds 0 --output_dir=outputs/proof

| arm | what is learned | acts by |
|---|---|---|
| flow | the expert's flow, which reads states and teaches the backbone | flow |
| tokens | action tokens alone: the expert is frozen and insulated | tokens |
| flow_tokens | both; both teach the backbone | flow |
| flow_tokens_insulated | both; the flow teaches the expert alone | flow |
| key_values | the flow of an expert that reads the backbone's keys and values | flow |

All start from random weights, or with --start from the backbone of one checkpoint. Demonstrations, held-out scenes and their datasets are
those of depth_helps.py. Finished cells are kept in outputs/action_experts/, so that a second call goes on where the first one stopped. What was
measured, and tables.md of it, is in its results/ (this repository keeps its own in results/action_experts/).
"""

import argparse
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import experiments
from action_experts_measures import seconds_per_chunk
from experiments import ACTION_STEPS, Cell, do_cells
from runs import ROOT, checkpoint, started_from, write
from tables import about_tests, spread, success_cells, table

OUTPUT = ROOT / "outputs" / "action_experts"
DATA = ROOT / "outputs" / "depth_helps" / "plain" / "data"
BASELINE = "flow"
EPISODES = 100

_TOKENS = "action_tokens.loss_weight=1"
_INSULATED = "action_tokens.insulate=true"
ARMS: dict[str, tuple[str, ...]] = {
    "flow": (),
    # Its flow's loss is constant; one draw for it costs least.
    "tokens": (
        _TOKENS,
        _INSULATED,
        "expert.freeze=true",
        "expert.flow_samples=1",
        "action_tokens.act=tokens",
    ),
    "flow_tokens": (_TOKENS,),
    "flow_tokens_insulated": (_TOKENS, _INSULATED),
    "key_values": ("expert.conditioning=key_values",),
}


class Experiment(experiments.Experiment):
    """The cells of all arms with one start.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        name = "scratch" if options.start is None else "pretrained"
        super().__init__(
            name,
            output=options.output_dir / name,
            results=options.output_dir / "results" / name,
            data=options.data_dir,
            episodes=options.episodes,
        )
        self._steps: int = options.steps
        self._start: tuple[str, ...] = ()
        if options.start is not None:
            started_from(self.output / "start", options.start)
            self._start = (f"--policy.backbone.pretrained={options.start}",)

    def policies(self, arm: str, seed: int) -> Iterator[Cell]:
        """Training of an arm, and what is measured on it."""
        name = f"{arm}_s{seed}"
        options = [*self._start, *(f"--policy.{option}" for option in ARMS[arm])]
        training = self.training(
            name, "gem_vla_tiny", "actions", self._steps, seed, self.action_episodes(), *options
        )
        yield self._counted(training, name)
        yield self.measuring(name)
        yield self._timing(name)
        yield self.evaluation(name, "as_trained")

    def _counted(self, training: Cell, name: str) -> Cell:
        """A training whose CPU seconds are kept, interrupted tries included."""

        def do() -> None:
            file, before = self.result(name, "training"), _cpu_seconds_of_commands()
            earlier = json.loads(file.read_text())["cpu_s"] if file.exists() else 0.0
            try:
                training.do()
            finally:
                seconds = earlier + _cpu_seconds_of_commands() - before
                write(file, {"cpu_s": seconds, "steps": self._steps})

        return Cell(training.name, training.result, do)

    def _timing(self, name: str) -> Cell:
        """CPU seconds of a chunk of actions."""

        def do() -> None:
            found = seconds_per_chunk(checkpoint(self.output, name), self.data("held_out"))
            write(self.result(name, "acting"), found)

        return Cell(f"time {self.name} {name}", self.result(name, "acting"), do)


def _cpu_seconds_of_commands() -> float:
    """Of all commands that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tables(results: Path) -> str:
    """One table for each start, of the arms that were evaluated."""
    parts = ["# Ways to learn actions: what examples/action_experts.py measured so far", ""]
    parts += [
        f"{about_tests(BASELINE)} Errors are of the first action on held-out scenes (full scale is 1), means over seeds with their range; "
        "seconds are CPU seconds.",
        "",
    ]
    header = "arm | seeds | solved | 95 % Wilson | % by seed | won : lost against flow | error, x and y | error, z | training, s | a chunk, s"
    for folder in sorted(path for path in results.glob("*/") if list(path.glob("*.as_trained.json"))):
        success, errors, training, acting = (
            _read(folder, measured) for measured in ("as_trained", "held_out", "training", "acting")
        )
        rows = []
        for arm in (arm for arm in ARMS if arm in success):
            solved = {seed: found["solved"] for seed, found in success[arm].items()}
            baseline = {} if arm == BASELINE else success.get(BASELINE, {})
            first = [found["first_action"] for found in errors[arm].values()]
            rows.append(
                [
                    arm,
                    str(len(solved)),
                    *success_cells(solved, {seed: found["solved"] for seed, found in baseline.items()}),
                    *(spread([error[axis]["mean"] for error in first]) for axis in ("xy", "z")),
                    *(
                        spread([found[name] for found in of_arm[arm].values()])
                        for of_arm, name in ((training, "cpu_s"), (acting, "cpu_s"))
                    ),
                ]
            )
        steps = sorted({found["steps"] for of_arm in training.values() for found in of_arm.values()})
        parts += [
            f"Start and setting: {folder.name}; {', '.join(map(str, steps))} steps:",
            "",
            table(header, rows),
        ]
    return "\n".join(parts)


def _read(folder: Path, measured: str) -> dict[str, dict[int, dict]]:
    """Arm -> seed -> what was measured."""
    found: dict[str, dict[int, dict]] = {}
    for file in sorted(folder.glob(f"*.{measured}.json")):
        arm, _, seed = file.name.split(".")[0].rpartition("_s")
        found.setdefault(arm, {})[int(seed)] = json.loads(file.read_text())
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    arguments.add_argument(
        "--start",
        type=Path,
        help="pretrained_model of a tiny gem checkpoint, whose backbone all arms start from",
    )
    arguments.add_argument("--steps", type=int, default=ACTION_STEPS, help="of each training")
    arguments.add_argument("--episodes", type=int, default=EPISODES, help="layouts, the same for all arms")
    arguments.add_argument(
        "--data_dir", type=Path, default=DATA, help="folder of the datasets `actions` and `held_out`"
    )
    arguments.add_argument("--output_dir", type=Path, default=OUTPUT)
    options = arguments.parse_args()
    experiment = Experiment(options)
    cells = list(experiment.action_data())
    for seed in options.seeds:
        for arm in options.arms:
            cells += experiment.policies(arm, seed)
    do_cells(experiment.output, cells)
    results = options.output_dir / "results"
    found = tables(results)
    (results / "tables.md").write_text(found)
    print(f"\n{found}")


if __name__ == "__main__":
    main()
