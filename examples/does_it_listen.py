"""Does a policy listen? One is trained on all objects of a scene, then asked for another one than the task's own.

    python examples/does_it_listen.py        # about an hour of one core

A scene of libero_object holds six objects; the instruction names one of them, in demonstrations and single frames alike. The
policy is then evaluated on unseen layouts twice: with the task's own instruction and, on the same layouts, with another object's
name. What counts is the share of each that ends up in the basket: a policy that is deaf brings the same object either way.

Finished steps are kept in outputs/listening/; results/listening/ has what was measured, with the commands.
"""

import json
from pathlib import Path

from runs import BIN, FPS, IMAGE_SIZE, ROOT, SUITE, evaluate, run, run_steps, train, trained

from lerobot_gem.results.counts import wilson

OUTPUT, RESULTS = ROOT / "outputs" / "listening", ROOT / "results" / "listening"
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


def train_policy() -> None:
    train(
        OUTPUT,
        "policy",
        "gem_vla_tiny",
        "--dataset.repo_id=local/listening",
        steps=STEPS,
        log_every=LOG_EVERY,
    )


def evaluate_policy(asked: str) -> None:
    evaluate(
        OUTPUT, f"eval_{asked}", "policy", TASK_ID, f"--env.named_object={ASKED[asked]}", episodes=EPISODES
    )


def outcomes(asked: str) -> dict[str, int]:
    """How many episodes ended with the object that was asked for in the basket, and with the task's own in its place."""
    [task] = json.loads((OUTPUT / f"eval_{asked}" / "eval_info.json").read_text())["per_task"]
    metrics = task["metrics"]
    return {
        "episodes": len(metrics["successes"]),
        "asked_for": sum(map(int, metrics["successes"])),
        "own_in_its_place": sum(reward < 0 for reward in metrics["sum_rewards"]),
    }


def report() -> None:
    """Count, and keep the result."""
    found = {asked: outcomes(asked) for asked in ASKED}
    for asked, counts in found.items():
        low, high = wilson(counts["asked_for"], counts["episodes"])
        print(
            f"{asked}: {counts['asked_for']} of {counts['episodes']} bring what was asked for ({100 * low:.0f} to {100 * high:.0f} %), "
            f"{counts['own_in_its_place']} the task's own in its place"
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"command": "python examples/does_it_listen.py", "steps": STEPS, **found}
    (RESULTS / "listening.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    def evaluated(asked: str) -> Path:
        return OUTPUT / f"eval_{asked}" / "eval_info.json"

    run_steps(
        OUTPUT,
        {
            "collect": (OUTPUT / "data" / "meta" / "info.json", collect),
            "train": (trained(OUTPUT, "policy"), train_policy),
            **{
                f"evaluate {asked}": (evaluated(asked), lambda asked=asked: evaluate_policy(asked))
                for asked in ASKED
            },
        },
    )
    report()


if __name__ == "__main__":
    main()
