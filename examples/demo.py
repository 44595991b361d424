"""The whole way in half an hour on two CPU cores: collect demonstrations in the LIBERO simulator, train a tiny GEM-VLA
with lerobot-train, and evaluate it with lerobot-eval on layouts that it has never seen.

`make demo` runs this. Finished stages are kept, so that a second call goes on where the first one stopped;
`--fresh` starts again. Everything is written to outputs/demo/: report.md and results.json (success with n and a 95 %
Wilson interval, and the same with the cameras blanked), rollout.mp4, training_curve.png.
"""

import argparse
import json
import shutil

from runs import BIN, ROOT, checkpoint, logged, run, run_steps, success, train

OUTPUT = ROOT / "outputs" / "demo"

SUITE, TASK_ID = "libero_object", 9
FPS, IMAGE_SIZE = 5, 128
DEMONSTRATIONS, SCENES = 150, 3000
STEPS, LOG_EVERY = 3000, 50
EPISODES, EPISODE_LENGTH = 20, 70


def collect() -> None:
    run(
        OUTPUT / "logs" / "collect.log",
        BIN / "lerobot-gem-libero-demos",
        f"--suite={SUITE}",
        f"--task_ids=[{TASK_ID}]",
        f"--episodes_per_task={DEMONSTRATIONS}",
        # Single frames, a random arm over a random layout labelled by the expert: many layouts for little simulation.
        f"--scenes_per_task={SCENES}",
        "--placement=wide",
        f"--fps={FPS}",
        f"--image_size={IMAGE_SIZE}",
        "--depth=false",
        "--repo_id=local/demo",
        f"--root={OUTPUT / 'data'}",
        "--num_workers=2",
        "--resume=true",
    )


def evaluate(name: str, blank_images: bool) -> None:
    run(
        OUTPUT / "logs" / f"{name}.log",
        BIN / "lerobot-eval",
        f"--policy.path={checkpoint(OUTPUT, 'train')}",
        "--env.type=libero_wide",
        f"--env.task={SUITE}",
        f"--env.task_ids=[{TASK_ID}]",
        f"--env.fps={FPS}",
        f"--env.episode_length={EPISODE_LENGTH}",
        f"--env.observation_height={IMAGE_SIZE}",
        f"--env.observation_width={IMAGE_SIZE}",
        f"--env.blank_images={str(blank_images).lower()}",
        f"--eval.n_episodes={EPISODES}",
        "--eval.batch_size=2",
        f"--output_dir={OUTPUT / name}",
    )


def plot_training_curve() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    losses = logged(OUTPUT / "logs" / "train.log", "loss")
    plt.figure(figsize=(7, 4))
    plt.semilogy([LOG_EVERY * (i + 1) for i in range(len(losses))], losses)
    plt.xlabel("step")
    plt.ylabel("flow-matching loss")
    plt.title("tiny GEM-VLA, lerobot-train")
    plt.grid(alpha=0.3, which="both")
    plt.tight_layout()
    plt.savefig(OUTPUT / "training_curve.png", dpi=120)


def copy_rollout() -> None:
    """Keep the video of the first success, or of the first episode if there is none."""
    [task] = json.loads((OUTPUT / "eval" / "eval_info.json").read_text())["per_task"]
    videos = task["metrics"]["video_paths"]
    order = sorted(range(len(videos)), key=lambda episode: not task["metrics"]["successes"][episode])
    shutil.copy(videos[order[0]], OUTPUT / "rollout.mp4")


def report(minutes: dict[str, float]) -> None:
    results = {
        "seeing": success(OUTPUT / "eval"),
        "blanked": success(OUTPUT / "eval_blanked"),
        "minutes": minutes,
    }
    (OUTPUT / "results.json").write_text(json.dumps(results, indent=2))
    rows = [
        f"| {name} | {r['successes']} of {r['n']} | {100 * r['low']:.0f} to {100 * r['high']:.0f} % |"
        for name, r in (("as trained", results["seeing"]), ("cameras blanked", results["blanked"]))
    ]
    text = "\n".join(
        [
            f"# Tiny GEM-VLA on {SUITE} task {TASK_ID}, unseen wide layouts",
            "",
            "| policy | success | 95 % Wilson interval |",
            "|---|---|---|",
            *rows,
            "",
            "Minutes: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in minutes.items()),
        ]
    )
    (OUTPUT / "report.md").write_text(text + "\n")
    print(f"\n{text}\n\nSee {OUTPUT}: report.md, results.json, rollout.mp4, training_curve.png")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--fresh", action="store_true", help="delete outputs/demo first")
    if arguments.parse_args().fresh:
        shutil.rmtree(OUTPUT, ignore_errors=True)
    steps = {
        "collect": (OUTPUT / "data" / "meta" / "info.json", collect),
        "train": (
            checkpoint(OUTPUT, "train") / "model.safetensors",
            lambda: train(
                OUTPUT,
                "train",
                "gem_vla_tiny",
                "--dataset.repo_id=local/demo",
                steps=STEPS,
                log_every=LOG_EVERY,
            ),
        ),
        "evaluate": (OUTPUT / "eval" / "eval_info.json", lambda: evaluate("eval", blank_images=False)),
        "evaluate blanked": (
            OUTPUT / "eval_blanked" / "eval_info.json",
            lambda: evaluate("eval_blanked", blank_images=True),
        ),
    }
    minutes = run_steps(OUTPUT, steps)
    plot_training_curve()
    copy_rollout()
    report(minutes)


if __name__ == "__main__":
    main()
