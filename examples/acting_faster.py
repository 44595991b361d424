"""What faster acting costs in success: one trained policy, acting in ways that approximate it, on the same layouts.

    python examples/acting_faster.py --policy.path=outputs/demo/stage4/checkpoints/last/pretrained_model --dataset.root=outputs/demo/data
    python examples/acting_faster.py --policy.path=... --dataset.root=... --cells steps_5 steps_2 steps_1 int8

| cell | the policy |
|---|---|
| steps_5, steps_2, steps_1 | as it is, with so many Euler steps |
| distilled | taught by it to act in one step |
| int8 | as it is, vision tower and decoder in 8 bits |
| smaller_pictures | trained anew on pictures of a quarter of the area |
| one_camera | trained anew on the first camera alone |
| trained_anew | trained anew as the last two are, on all of it: what those compare with |

Finished cells are kept in outputs/acting_faster/, so that a second call goes on where the first one stopped; what was measured is in its
results/ (this repository keeps its own in results/acting_faster/).
Success comes with its 95 % Wilson interval and McNemar's exact test against the cell it compares with. What was trained with more than
configs/policy/gem_vla_tiny.yaml says (a pre-trained backbone, say) names it: --training=--policy.backbone.pretrained=outputs/demo/stage3/checkpoints/last/pretrained_model
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from runs import ROOT, checkpoint, evaluate, run, run_steps, started_from, success, train, trained, write

OUTPUT = ROOT / "outputs" / "acting_faster"
CONFIG = "gem_vla_tiny"
GIVEN = "given"
LOG_EVERY = 50
RELEASED_STEPS = "expert.num_inference_steps=5"  # of Euler, as the release acts


@dataclass(frozen=True)
class Way:
    """A way of acting.

    Attributes:
        acting: Options of the policy when it acts.
        training: Options of the policy when it is trained; None acts with the one that was given.
        taught: It learns from the given one, and starts as it.
        like: The cell that it compares with.
    """

    acting: tuple[str, ...] = ()
    training: tuple[str, ...] | None = None
    taught: bool = False
    like: str = "steps_5"


WAYS = {
    "steps_5": Way((RELEASED_STEPS,)),
    "steps_2": Way(("expert.num_inference_steps=2",)),
    "steps_1": Way(("expert.num_inference_steps=1",)),
    "distilled": Way(
        training=("backbone.freeze_vision_tower=true", "backbone.freeze_language_model=true"), taught=True
    ),
    "int8": Way((RELEASED_STEPS, "quantization=int8")),
    "trained_anew": Way((RELEASED_STEPS,), training=()),
    "smaller_pictures": Way(
        (RELEASED_STEPS,),
        training=("cameras.min_pixels=4096", "cameras.max_pixels=4096"),
        like="trained_anew",
    ),
    "one_camera": Way(
        (RELEASED_STEPS,), training=('cameras.names=["observation.images.image"]',), like="trained_anew"
    ),
}


class Experiment:
    """The cells of one policy.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.output: Path = options.output_dir
        self.results = self.output / "results"
        started_from(checkpoint(self.output, GIVEN), options.policy)

    def policy_of(self, name: str) -> str:
        """Folder of the policy that a cell acts with, under `output`."""
        return GIVEN if WAYS[name].training is None else name

    def train(self, name: str) -> None:
        """Train the policy of a cell."""
        way, given = WAYS[name], checkpoint(self.output, GIVEN)
        assert way.training is not None
        taught = [f"--policy.path={given}", f"--policy.distillation.teacher={given}"] if way.taught else []
        train(
            self.output,
            name,
            CONFIG,
            f"--dataset.repo_id={self.options.repo_id}",
            *taught,
            *(f"--policy.{option}" for option in way.training),
            *([] if way.taught else self.options.training),
            steps=self.options.steps,
            log_every=LOG_EVERY,
            data=self.options.root,
        )

    def measure(self, name: str) -> None:
        """Seconds and memory of a chunk, in a process of its own."""
        run(
            self.output / "logs" / name / "measure.log",
            sys.executable,
            ROOT / "examples" / "acting_faster_measure.py",
            str(checkpoint(self.output, self.policy_of(name))),
            str(self.measured(name)),
            *WAYS[name].acting,
        )

    def evaluate(self, name: str) -> None:
        """Success, with the layouts' own outcomes."""
        folder = f"{name}_eval"
        options = [f"--policy.{option}" for option in WAYS[name].acting]
        evaluate(
            self.output,
            folder,
            self.policy_of(name),
            self.options.task_id,
            *options,
            episodes=self.options.episodes,
        )
        [task] = json.loads((self.output / folder / "eval_info.json").read_text())["per_task"]
        solved = [int(outcome) for outcome in task["metrics"]["successes"]]
        write(self.result(name), success(self.output / folder) | {"solved": solved})

    def measured(self, name: str) -> Path:
        """Where seconds and memory are kept."""
        return self.results / f"{name}.measured.json"

    def result(self, name: str) -> Path:
        """Where success is kept."""
        return self.results / f"{name}.json"

    def run(self) -> None:
        """Do the cells that are not done, and write the table."""
        steps = {}
        for name in self.options.cells:
            if WAYS[name].training is not None:
                steps[f"train {name}"] = trained(self.output, name), lambda name=name: self.train(name)
            steps[f"measure {name}"] = self.measured(name), lambda name=name: self.measure(name)
            steps[f"evaluate {name}"] = self.result(name), lambda name=name: self.evaluate(name)
        run_steps(self.output, steps)
        found = table(self.results)
        (self.results / "table.md").write_text(found)
        print(f"\n{found}")


def table(results: Path) -> str:
    """Seconds, memory and success of the cells that are done."""
    from lerobot_gem.results.counts import mcnemar

    lines = [
        "| acting | CPU s for a chunk | peak memory, MB | success | 95 % | compared with | it alone / this alone | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    done = {name: results / f"{name}.json" for name in WAYS if (results / f"{name}.json").exists()}
    found = {name: json.loads(file.read_text()) for name, file in done.items()}
    for name, own in found.items():
        measured = json.loads((results / f"{name}.measured.json").read_text())
        like, compared = WAYS[name].like, "| | | |"
        if like != name and like in found:
            pairs = list(zip(found[like]["solved"], own["solved"], strict=True))
            other_alone, alone, p = mcnemar([(bool(one), bool(other)) for one, other in pairs])
            compared = f"| {like} | {other_alone} / {alone} | {p:.2g} |"
        lines.append(
            f"| {name} | {measured['chunk_s']:.3f} | {measured['peak_mb']:.0f} | {own['successes']} of {own['n']} | "
            f"{own['low']:.2f} to {own['high']:.2f} {compared}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--policy.path", dest="policy", type=Path, required=True, help="its pretrained_model"
    )
    arguments.add_argument(
        "--dataset.root", dest="root", type=Path, required=True, help="what it was trained on"
    )
    arguments.add_argument("--dataset.repo_id", dest="repo_id", default="local/data")
    arguments.add_argument("--cells", choices=WAYS, nargs="+", default=list(WAYS))
    arguments.add_argument("--task_id", type=int, default=9, help="of libero_object")
    arguments.add_argument("--episodes", type=int, default=100, help="layouts, the same for all cells")
    arguments.add_argument("--steps", type=int, default=1000, help="of the cells that are trained")
    arguments.add_argument(
        "--training", action="append", default=[], help="an option of lerobot-train, where cells start anew"
    )
    arguments.add_argument("--output_dir", type=Path, default=OUTPUT)
    options = arguments.parse_args()
    if not (options.policy / "config.json").is_file():
        sys.exit(
            f"--policy.path={options.policy}: expected the pretrained_model of a gem_vla policy, and found no config.json."
        )
    Experiment(options).run()


if __name__ == "__main__":
    main()
