"""Does a policy listen? One is trained on all objects of a scene, then asked for another one than the task's own.

    python examples/does_it_listen.py        # about an hour of one core
    python examples/does_it_listen.py --start=outputs/depth_helps/plain/depth2400_s1/stage3/checkpoints/last/pretrained_model

A scene of libero_object holds six objects; the instruction names one of them, in demonstrations and single frames alike. The
policy is then evaluated on unseen layouts twice: with the task's own instruction and, on the same layouts, with another object's
name. What counts is the share of each that ends up in the basket: a policy that is deaf brings the same object either way.

It starts from random weights, or with --start from the backbone of a checkpoint. Finished steps and what was measured are
kept in outputs/listening/; this repository keeps its own measurements in results/listening/.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from runs import (
    BIN,
    FPS,
    IMAGE_SIZE,
    ROOT,
    SUITE,
    evaluate,
    run,
    run_steps,
    started_from,
    train,
    trained,
    write,
)

from lerobot_gem.results.counts import wilson

OUTPUT = ROOT / "outputs" / "listening"
TASK_ID = 9
DEMONSTRATIONS, SCENES = 180, 9000
STEPS, LOG_EVERY = 5000, 100
EPISODES = 60
# What is asked for: the environment's option.
ASKED = {"own": "", "other": "other"}


def collect() -> None:
    run(
        OUTPUT / "logs" / "collect.log",
        BIN / "lerobot-gem-libero-demos",
        f"--suite={SUITE}",
        f"--task_ids=[{TASK_ID}]",
        "--named_object=any",
        f"--episodes_per_task={DEMONSTRATIONS}",
        f"--scenes_per_task={SCENES}",
        f"--fps={FPS}",
        f"--image_size={IMAGE_SIZE}",
        "--depth=false",
        "--output.repo_id=local/listening",
        f"--output.root={OUTPUT / 'data'}",
        "--resume=true",
    )


def outcomes(folder: Path) -> dict[str, int]:
    """How many episodes ended with the object that was asked for in the basket, and with the task's own in its place."""
    [task] = json.loads((folder / "eval_info.json").read_text())["per_task"]
    metrics = task["metrics"]
    return {
        "episodes": len(metrics["successes"]),
        "asked_for": sum(map(int, metrics["successes"])),
        "own_in_its_place": sum(reward < 0 for reward in metrics["sum_rewards"]),
    }


def report(name: str, output: Path, command: str, steps: int) -> None:
    """Count, and keep the result."""
    found = {asked: outcomes(output / f"eval_{asked}") for asked in ASKED}
    for asked, counts in found.items():
        low, high = wilson(counts["asked_for"], counts["episodes"])
        print(
            f"{asked}: {counts['asked_for']} of {counts['episodes']} bring what was asked for ({100 * low:.0f} to {100 * high:.0f} %), "
            f"{counts['own_in_its_place']} the task's own in its place"
        )
    write(OUTPUT / "results" / f"{name}.json", {"command": command, "steps": steps, **found})


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--start", type=Path, help="pretrained_model of a tiny gem checkpoint, whose backbone is taken"
    )
    arguments.add_argument("--steps", type=int, default=STEPS)
    options = arguments.parse_args()
    name, start, command = "scratch", [], "python examples/does_it_listen.py"
    if options.start is not None:
        name, start = "pretrained", [f"--policy.backbone.pretrained={options.start}"]
        command += f" --start={options.start}"
        started_from(OUTPUT / name / "start", options.start)
    output = OUTPUT / name

    def train_policy() -> None:
        train(
            output,
            "policy",
            "gem_vla_tiny",
            "--dataset.repo_id=local/listening",
            *start,
            steps=options.steps,
            log_every=LOG_EVERY,
            data=OUTPUT / "data",
        )

    def evaluate_policy(asked: str) -> None:
        named = f"--env.named_object={ASKED[asked]}"
        evaluate(output, f"eval_{asked}", "policy", TASK_ID, named, episodes=EPISODES)

    run_steps(
        output,
        {
            "collect": (OUTPUT / "data" / "meta" / "info.json", collect),
            "train": (trained(output, "policy"), train_policy),
            **{
                f"evaluate {asked}": (
                    output / f"eval_{asked}" / "eval_info.json",
                    partial(evaluate_policy, asked),
                )
                for asked in ASKED
            },
        },
    )
    report(name, output, f"{command} --steps={options.steps}", options.steps)


if __name__ == "__main__":
    main()
