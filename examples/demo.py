"""The whole way in half an hour on two CPU cores: collect demonstrations in the LIBERO simulator, train a tiny GEM-VLA
with lerobot-train, and evaluate it with lerobot-eval on layouts that it has never seen.

`make demo` runs this. Finished stages are kept, so that a second call goes on where the first one stopped;
`--fresh` starts again. Everything is written to outputs/demo/: report.md and results.json (success with n and a 95 %
Wilson interval, and the same with the cameras blanked), rollout.mp4, training_curve.png.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "outputs" / "demo"
BIN = Path(sys.executable).parent

SUITE, TASK_ID = "libero_object", 1
FPS, IMAGE_SIZE = 5, 128
DEMONSTRATIONS, SCENES = 150, 800
STEPS, LOG_EVERY = 800, 20
EPISODES, EPISODE_LENGTH = 20, 70


def run(log: Path, *command: str | Path) -> float:
    """Run a command, shown and logged; returns its seconds. A failure ends the demo with the place of the log."""
    print(f"\n$ {' '.join(map(str, command))}", flush=True)
    start = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        while piece := process.stdout.read1():
            file.write(piece)
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    if process.returncode:
        sys.exit(f"\n{command[0]} ended with code {process.returncode}; its output is in {log}")
    return time.monotonic() - start


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


def train() -> None:
    output = OUTPUT / "train"
    shutil.rmtree(output, ignore_errors=True)  # of a run that was interrupted
    run(
        OUTPUT / "logs" / "train.log",
        BIN / "lerobot-train",
        f"--config_path={ROOT / 'configs' / 'policy' / 'gem_vla_tiny.yaml'}",
        "--dataset.repo_id=local/demo",
        f"--dataset.root={OUTPUT / 'data'}",
        f"--output_dir={output}",
        f"--steps={STEPS}",
        f"--log_freq={LOG_EVERY}",
        f"--save_freq={STEPS}",
    )


def evaluate(name: str, blank_images: bool) -> None:
    run(
        OUTPUT / "logs" / f"{name}.log",
        BIN / "lerobot-eval",
        f"--policy.path={OUTPUT / 'train' / 'checkpoints' / 'last' / 'pretrained_model'}",
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


def success(name: str) -> dict[str, float | int]:
    """Successes of an evaluation with the 95 % Wilson interval."""
    from scipy.stats import binomtest

    [task] = json.loads((OUTPUT / name / "eval_info.json").read_text())["per_task"]
    successes = task["metrics"]["successes"]
    interval = binomtest(sum(successes), len(successes)).proportion_ci(method="wilson")
    return {"successes": sum(successes), "n": len(successes), "low": interval.low, "high": interval.high}


def plot_training_curve() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    losses = [
        float(loss)
        for loss in re.findall(r"step:\S+ .*?loss:([\d.]+)", (OUTPUT / "logs/train.log").read_text())
    ]
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
    results = {"seeing": success("eval"), "blanked": success("eval_blanked"), "minutes": minutes}
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
    stages = {
        "collect": (OUTPUT / "data" / "meta" / "info.json", collect),
        "train": (
            OUTPUT / "train" / "checkpoints" / "last" / "pretrained_model" / "model.safetensors",
            train,
        ),
        "evaluate": (OUTPUT / "eval" / "eval_info.json", lambda: evaluate("eval", blank_images=False)),
        "evaluate blanked": (
            OUTPUT / "eval_blanked" / "eval_info.json",
            lambda: evaluate("eval_blanked", blank_images=True),
        ),
    }
    times = OUTPUT / "minutes.json"
    minutes = json.loads(times.read_text()) if times.exists() else {}
    for number, (name, (result, stage)) in enumerate(stages.items(), start=1):
        if result.exists():
            print(f"[{number}/{len(stages)}] {name}: done before, see {result}")
            continue
        print(f"[{number}/{len(stages)}] {name}", flush=True)
        start = time.monotonic()
        stage()
        minutes[name] = (time.monotonic() - start) / 60
        times.write_text(json.dumps(minutes))
    plot_training_curve()
    copy_rollout()
    report(minutes)


if __name__ == "__main__":
    main()
