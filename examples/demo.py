"""What GEM is for, in half an hour on two CPU cores: collect demonstrations with depth in the LIBERO simulator, teach a tiny
backbone to paint depth (stages 1 to 3), train an action policy on it (stage 4), and evaluate it on placements that it has
never seen; beside it its twin, which learns the same actions from the same data, without pre-training.

`make demo` runs this. `--recipe=long` has more data, more training, more episodes; `--recipe=toy` learns nothing, to see that it runs.
A second call goes on where the first one stopped, in the middle of collecting and training as well; `--fresh` starts again.
Commands run with one thread each, unless OMP_NUM_THREADS says otherwise. Everything is written to outputs/demo/
(outputs/demo_long/): page.html and results.json (success of GEM's policy, of its twin, and of GEM's policy with blanked
cameras, with n and a 95 % Wilson interval), depth/ (RGB, true and painted depth), rollout.mp4, training_curves.png.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runs import (
    BIN,
    ROOT,
    SUITE,
    beside,
    checkpoint,
    collect,
    evaluate,
    logged,
    run,
    run_steps,
    success,
    train,
    trained,
)

TASK_ID = 9
LOG_EVERY = 10
DATASET = "--dataset.repo_id=local/demo"
# Folder of an evaluation -> what the page calls it.
EVALUATIONS = {
    "eval": "GEM: depth first, then actions",
    "eval_twin": "its twin: actions alone",
    "eval_blanked": "GEM, cameras blanked",
}
# Training -> what it logs.
LOSSES = {
    "stage1": ["depth_loss"],
    "stage2": ["depth_loss"],
    "stage3": ["language_loss", "depth_loss"],
    "stage4": ["action_loss"],
    "twin": ["action_loss"],
}
VIZ_FRAMES = 8

Steps = dict[str, tuple[Path, Callable[[], None]]]


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        output: Where it goes.
        demonstrations: Successful episodes of the scripted policy.
        scenes: Single frames of random arm poses over random placements, labelled by the scripted policy: many placements
            for little simulation.
        connector_steps: Of stage 1.
        generator_steps: Of stage 2.
        joint_steps: Of stage 3.
        action_steps: Of stage 4, and of the twin.
        episodes: Of each evaluation.
    """

    output: Path
    demonstrations: int
    scenes: int
    connector_steps: int
    generator_steps: int
    joint_steps: int
    action_steps: int
    episodes: int


RECIPES = {
    # To see that it runs; learns nothing.
    "toy": Recipe(
        ROOT / "outputs" / "demo_toy",
        demonstrations=2,
        scenes=50,
        connector_steps=10,
        generator_steps=10,
        joint_steps=10,
        action_steps=10,
        episodes=2,
    ),
    "demo": Recipe(
        ROOT / "outputs" / "demo",
        demonstrations=100,
        scenes=3000,
        connector_steps=60,
        generator_steps=250,
        joint_steps=1600,
        action_steps=600,
        episodes=20,
    ),
    "long": Recipe(
        ROOT / "outputs" / "demo_long",
        demonstrations=300,
        scenes=6000,
        connector_steps=60,
        generator_steps=250,
        joint_steps=5000,
        action_steps=3000,
        episodes=50,
    ),
}


def training(recipe: Recipe, name: str, config: str, steps: int, *arguments: str) -> tuple[Path, Callable]:
    """A training step for `run_steps`."""
    return trained(recipe.output, name), lambda: train(
        recipe.output, name, config, DATASET, *arguments, steps=steps, log_every=LOG_EVERY
    )


def evaluation(recipe: Recipe, name: str, policy: str, *arguments: str) -> tuple[Path, Callable]:
    """An evaluation step for `run_steps`."""
    return recipe.output / name / "eval_info.json", lambda: evaluate(
        recipe.output, name, policy, TASK_ID, *arguments, episodes=recipe.episodes
    )


def collecting(recipe: Recipe) -> Steps:
    """What both policies learn from."""
    return {
        "collect": (
            recipe.output / "data" / "meta" / "info.json",
            lambda: collect(
                recipe.output,
                "local/demo",
                TASK_ID,
                demonstrations=recipe.demonstrations,
                scenes=recipe.scenes,
            ),
        )
    }


def gem(recipe: Recipe) -> Steps:
    """The four stages, and what the generator paints."""
    output = recipe.output

    def before(stage: str) -> str:
        return f"--policy.path={checkpoint(output, stage)}"

    def paint() -> None:
        shutil.rmtree(output / "depth", ignore_errors=True)  # of a run that was interrupted
        run(
            output / "logs" / "depth.log",
            BIN / "lerobot-gem-depth-viz",
            f"--policy.path={checkpoint(output, 'stage3')}",
            DATASET,
            f"--dataset.root={output / 'data'}",
            f"--num_frames={VIZ_FRAMES}",
            f"--output_dir={output / 'depth'}",
        )

    backbone = f"--policy.backbone.pretrained={checkpoint(output, 'stage3')}"
    return {
        "stage 1": training(recipe, "stage1", "gem_tiny_stage1", recipe.connector_steps),
        "stage 2": training(recipe, "stage2", "gem_tiny_stage2", recipe.generator_steps, before("stage1")),
        "stage 3": training(recipe, "stage3", "gem_tiny_stage3", recipe.joint_steps, before("stage2")),
        "stage 4": training(recipe, "stage4", "gem_vla_tiny", recipe.action_steps, backbone),
        "paint depth": (output / "depth" / "metrics.json", paint),
    }


def twin(recipe: Recipe) -> Steps:
    """The same action training without pre-training."""
    return {
        "twin": training(recipe, "twin", "gem_vla_tiny", recipe.action_steps),
        "evaluate twin": evaluation(recipe, "eval_twin", "twin"),
    }


def blanked(recipe: Recipe) -> Steps:
    """A policy that looks can't do without its cameras."""
    return {"evaluate blanked": evaluation(recipe, "eval_blanked", "stage4", "--env.blank_images=true")}


def plot_training_curves(output: Path) -> None:
    """Depth loss of stages 2 and 3, and action loss of both policies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    curves = [(left, "stage3", "depth_loss", "stage 3")]
    curves += [(right, "stage4", "action_loss", "GEM"), (right, "twin", "action_loss", "its twin")]
    for axis, name, loss, label in curves:
        losses = logged(output / "logs" / f"{name}.log", loss)
        axis.semilogy([LOG_EVERY * (i + 1) for i in range(len(losses))], losses, label=label)
    left.set_title("painting depth")
    right.set_title("acting")
    for axis in (left, right):
        axis.set_xlabel("step")
        axis.set_ylabel("flow-matching loss")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.tight_layout()
    figure.savefig(output / "training_curves.png", dpi=120)


def ends(output: Path, run: str) -> dict[str, tuple[float, float]]:
    """Loss -> its mean over the first and over the last `LOG_EVERY` steps of a training."""
    losses = {loss: logged(output / "logs" / f"{run}.log", loss) for loss in LOSSES[run]}
    return {loss: (values[0], values[-1]) for loss, values in losses.items()}


def copy_rollout(output: Path) -> None:
    """Keep the video of the first success, or of the first episode if there is none."""
    [task] = json.loads((output / "eval" / "eval_info.json").read_text())["per_task"]
    videos = task["metrics"]["video_paths"]
    order = sorted(range(len(videos)), key=lambda episode: not task["metrics"]["successes"][episode])
    shutil.copy(videos[order[0]], output / "rollout.mp4")


def report(recipe: Recipe) -> None:
    """One page, and the same as JSON."""
    import jinja2

    output = recipe.output
    minutes: dict[str, float] = {}
    for file in sorted(output.glob("*minutes.json")):
        minutes |= json.loads(file.read_text())
    plot_training_curves(output)
    copy_rollout(output)
    found = {name: success(output / name) for name in EVALUATIONS}
    painted = json.loads((output / "depth" / "metrics.json").read_text())
    results = {
        **found,
        "losses": {run: ends(output, run) for run in LOSSES},
        "painted_depth": {camera: scores["mean"] for camera, scores in painted["cameras"].items()},
        "minutes": minutes,
    }
    (output / "results.json").write_text(json.dumps(results, indent=2))
    template = jinja2.Template((ROOT / "examples" / "demo_page.html.jinja").read_text(), autoescape=True)
    strips = sorted(path.relative_to(output) for path in (output / "depth" / "frames").glob("*.png"))
    page = template.render(
        rows=[(title, found[name]) for name, title in EVALUATIONS.items()],
        recipe=recipe,
        suite=SUITE,
        task_id=TASK_ID,
        strips=strips,
        minutes=minutes,
    )
    (output / "page.html").write_text(page)
    for name, title in EVALUATIONS.items():
        rate = found[name]
        print(
            f"{title}: {rate['successes']} of {rate['n']} unseen placements "
            f"(95 % Wilson interval {100 * rate['low']:.0f} to {100 * rate['high']:.0f} %)"
        )
    print(f"See {output}: page.html, results.json, depth/, rollout.mp4, training_curves.png")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--recipe", choices=RECIPES, default="demo")
    arguments.add_argument("--fresh", action="store_true", help="delete what an earlier call left first")
    # The other core's part, which this program starts itself.
    arguments.add_argument("--part", choices=["twin", "blanked"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    recipe = RECIPES[options.recipe]
    output = recipe.output
    if options.part:
        steps = twin(recipe) if options.part == "twin" else blanked(recipe)
        run_steps(output, steps, f"{options.part}_minutes.json")
        return
    if options.fresh:
        shutil.rmtree(output, ignore_errors=True)

    run_steps(output, collecting(recipe))
    for steps, part in (
        (gem(recipe), "twin"),
        ({"evaluate": evaluation(recipe, "eval", "stage4")}, "blanked"),
    ):
        command = sys.executable, __file__, f"--recipe={options.recipe}", f"--part={part}"
        # The training "twin" has a log of that name.
        with beside(output / "logs" / f"other_core_{part}.log", *command) as wait:
            result = output / f"eval_{part}" / "eval_info.json"
            run_steps(output, steps | {f"wait for the other core: {part}": (result, wait)})
    report(recipe)


if __name__ == "__main__":
    main()
