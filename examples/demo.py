"""The whole way in half an hour on two CPU cores: collect demonstrations in the LIBERO simulator, train a tiny GEM-VLA
with lerobot-train, and evaluate it with lerobot-eval on placements that it has never seen.

`make demo` runs this. `--recipe=long` takes an hour and a half on one core: more data, more training, more episodes.
A second call goes on where the first one stopped, in the middle of collecting and training as well; `--fresh` starts again.
Commands run with one thread each, unless OMP_NUM_THREADS says otherwise. Everything is
written to outputs/demo/ (outputs/demo_long/): report.md and results.json (success with n and a 95 % Wilson interval, and the
same with the cameras blanked), rollout.mp4, training_curve.png.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from runs import ROOT, SUITE, collect, evaluate, logged, run_steps, success, train, trained

TASK_ID = 9
LOG_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        output: Where it goes.
        demonstrations: Successful episodes of the scripted policy.
        scenes: Single frames of random arm poses over random placements, labelled by the scripted policy: many placements
            for little simulation.
        steps: Of training.
        episodes: Of each evaluation.
    """

    output: Path
    demonstrations: int
    scenes: int
    steps: int
    episodes: int


RECIPES = {
    "demo": Recipe(ROOT / "outputs" / "demo", demonstrations=150, scenes=3000, steps=2000, episodes=20),
    "long": Recipe(ROOT / "outputs" / "demo_long", demonstrations=300, scenes=6000, steps=6000, episodes=50),
}


def plot_training_curve(output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    losses = logged(output / "logs" / "train.log", "loss")
    plt.figure(figsize=(7, 4))
    plt.semilogy([LOG_EVERY * (i + 1) for i in range(len(losses))], losses)
    plt.xlabel("step")
    plt.ylabel("flow-matching loss")
    plt.title("tiny GEM-VLA, lerobot-train")
    plt.grid(alpha=0.3, which="both")
    plt.tight_layout()
    plt.savefig(output / "training_curve.png", dpi=120)


def copy_rollout(output: Path) -> None:
    """Keep the video of the first success, or of the first episode if there is none."""
    [task] = json.loads((output / "eval" / "eval_info.json").read_text())["per_task"]
    videos = task["metrics"]["video_paths"]
    order = sorted(range(len(videos)), key=lambda episode: not task["metrics"]["successes"][episode])
    shutil.copy(videos[order[0]], output / "rollout.mp4")


def report(output: Path, minutes: dict[str, float]) -> None:
    results = {
        "seeing": success(output / "eval"),
        "blanked": success(output / "eval_blanked"),
        "minutes": minutes,
    }
    (output / "results.json").write_text(json.dumps(results, indent=2))
    rows = [
        f"| {name} | {r['successes']} of {r['n']} | {100 * r['low']:.0f} to {100 * r['high']:.0f} % |"
        for name, r in (("as trained", results["seeing"]), ("cameras blanked", results["blanked"]))
    ]
    text = "\n".join(
        [
            f"# Tiny GEM-VLA on {SUITE} task {TASK_ID}, unseen wide placements",
            "",
            "| policy | success | 95 % Wilson interval |",
            "|---|---|---|",
            *rows,
            "",
            "Minutes: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in minutes.items()),
        ]
    )
    (output / "report.md").write_text(text + "\n")
    print(f"\n{text}\n\nSee {output}: report.md, results.json, rollout.mp4, training_curve.png")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--recipe", choices=RECIPES, default="demo")
    arguments.add_argument("--fresh", action="store_true", help="delete what an earlier call left first")
    options = arguments.parse_args()
    recipe = RECIPES[options.recipe]
    output = recipe.output
    if options.fresh:
        shutil.rmtree(output, ignore_errors=True)
    steps = {
        "collect": (
            output / "data" / "meta" / "info.json",
            lambda: collect(
                output,
                "local/demo",
                TASK_ID,
                demonstrations=recipe.demonstrations,
                scenes=recipe.scenes,
                depth=False,
            ),
        ),
        "train": (
            trained(output, "train"),
            lambda: train(
                output,
                "train",
                "gem_vla_tiny",
                "--dataset.repo_id=local/demo",
                steps=recipe.steps,
                log_every=LOG_EVERY,
            ),
        ),
        "evaluate": (
            output / "eval" / "eval_info.json",
            lambda: evaluate(output, "eval", "train", TASK_ID, episodes=recipe.episodes),
        ),
        "evaluate blanked": (
            output / "eval_blanked" / "eval_info.json",
            lambda: evaluate(
                output, "eval_blanked", "train", TASK_ID, episodes=recipe.episodes, blank_images=True
            ),
        ),
    }
    minutes = run_steps(output, steps)
    plot_training_curve(output)
    copy_rollout(output)
    report(output, minutes)


if __name__ == "__main__":
    main()
