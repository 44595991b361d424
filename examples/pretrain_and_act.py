"""GEM's four stages in half an hour on two CPU cores: collect demonstrations with depth in the LIBERO simulator, pre-train
the tiny backbone by generating depth (stages 1 to 3), train an action policy on it (stage 4), and evaluate that in the
simulator.

Finished steps are kept, so that a second call goes on where the first one stopped; `--fresh` starts again. Everything is
written to outputs/pretrain_and_act/: report.md and results.json (losses at the start and end of each stage, success
with n and a 95 % Wilson interval), and strips of RGB, true and generated depth before and after.
"""

import argparse
import json
import shutil
from pathlib import Path

from runs import (
    BIN,
    ROOT,
    SUITE,
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

OUTPUT = ROOT / "outputs" / "pretrain_and_act"

TASK_ID = 1
DEMONSTRATIONS, SCENES = 30, 300
EPISODES = 10
VIZ_FRAMES = 16
LOG_EVERY = 10


def visualise(stage: str) -> None:
    """Strips and metrics of the depth that a stage's checkpoint generates."""
    shutil.rmtree(OUTPUT / f"depth_{stage}", ignore_errors=True)  # of a run that was interrupted
    run(
        OUTPUT / "logs" / f"depth_{stage}.log",
        BIN / "lerobot-gem-depth-viz",
        f"--policy.path={checkpoint(OUTPUT, stage)}",
        "--dataset.repo_id=local/pretrain_and_act",
        f"--dataset.root={OUTPUT / 'data'}",
        f"--num_frames={VIZ_FRAMES}",
        f"--output_dir={OUTPUT / f'depth_{stage}'}",
    )


def report(minutes: dict[str, float]) -> None:
    losses = {
        stage: {
            loss: values
            for loss in ("language_loss", "depth_loss", "action_loss")
            if (values := ends(stage, loss))
        }
        for stage in ("stage1", "stage2", "stage3", "stage4")
    }
    results = {"losses": losses, "evaluation": success(OUTPUT / "eval"), "minutes": minutes}
    (OUTPUT / "results.json").write_text(json.dumps(results, indent=2))
    rows = [
        f"| {stage} | {loss} | {first:.3f} | {last:.3f} |"
        for stage, found in losses.items()
        for loss, (first, last) in found.items()
    ]
    evaluation = results["evaluation"]
    text = "\n".join(
        [
            f"# Tiny GEM: four stages on {SUITE} task {TASK_ID}",
            "",
            f"| stage | loss | mean of the first {LOG_EVERY} steps | of the last |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Success on unseen wide placements: {evaluation['successes']} of {evaluation['n']} "
            f"(95 % Wilson interval {100 * evaluation['low']:.0f} to {100 * evaluation['high']:.0f} %).",
            "",
            "Minutes: " + ", ".join(f"{step} {spent:.1f}" for step, spent in minutes.items()),
        ]
    )
    (OUTPUT / "report.md").write_text(text + "\n")
    print(f"\n{text}\n\nSee {OUTPUT}: report.md, results.json, depth_stage1/, depth_stage3/")


def ends(stage: str, loss: str) -> tuple[float, float] | None:
    """First and last logged value of a loss, or None if the stage does not have it."""
    values = logged(OUTPUT / "logs" / f"{stage}.log", loss)
    return (values[0], values[-1]) if values else None


def training(name: str, config: str, steps: int, *arguments: str) -> tuple[Path, object]:
    """A training step for `run_steps`."""
    arguments = ("--dataset.repo_id=local/pretrain_and_act", *arguments)
    return trained(OUTPUT, name), lambda: train(
        OUTPUT, name, config, *arguments, steps=steps, log_every=LOG_EVERY
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--fresh", action="store_true", help="delete outputs/pretrain_and_act first")
    arguments.add_argument(
        "--toy", action="store_true", help="a few steps of everything, to see that it runs; learns nothing"
    )
    options = arguments.parse_args()
    if options.fresh:
        shutil.rmtree(OUTPUT, ignore_errors=True)
    scale = 0.05 if options.toy else 1.0

    def scaled(amount: int) -> int:
        return max(LOG_EVERY, round(scale * amount))

    def before(name: str) -> str:
        return f"--policy.path={checkpoint(OUTPUT, name)}"

    steps = {
        "collect": (
            OUTPUT / "data" / "meta" / "info.json",
            lambda: collect(
                OUTPUT,
                "local/pretrain_and_act",
                TASK_ID,
                demonstrations=max(2, round(scale * DEMONSTRATIONS)),
                scenes=scaled(SCENES),
            ),
        ),
        "stage 1": training("stage1", "gem_tiny_stage1", scaled(60)),
        "depth before": (OUTPUT / "depth_stage1" / "metrics.json", lambda: visualise("stage1")),
        "stage 2": training("stage2", "gem_tiny_stage2", scaled(250), before("stage1")),
        "stage 3": training("stage3", "gem_tiny_stage3", scaled(300), before("stage2")),
        "depth after": (OUTPUT / "depth_stage3" / "metrics.json", lambda: visualise("stage3")),
        "stage 4": training(
            "stage4",
            "gem_vla_tiny_depth",
            scaled(400),
            f"--policy.backbone.pretrained={checkpoint(OUTPUT, 'stage3')}",
        ),
        "evaluate": (
            OUTPUT / "eval" / "eval_info.json",
            lambda: evaluate(OUTPUT, "eval", "stage4", TASK_ID, episodes=2 if options.toy else EPISODES),
        ),
    }
    report(run_steps(OUTPUT, steps))


if __name__ == "__main__":
    main()
