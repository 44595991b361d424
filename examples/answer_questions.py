"""Questions from the simulator, learned and scored: collects scenes with questions, trains the tiny preset's vision-language
model on them with lerobot-train, and scores with lerobot-gem-eval-vqa what it answers about scenes that it has never seen.

Finished stages are kept, so that a second call goes on where the first one stopped; `--fresh` starts again. Results in
outputs/answer_questions/: scores/scores.json, scores/predictions.jsonl, and what is printed, logs/scores.log.
"""

import argparse
import shutil

from runs import BIN, IMAGE_SIZE, ROOT, SUITE, checkpoint, run, run_steps, train, trained

OUTPUT = ROOT / "outputs" / "answer_questions"
TASK_ID = 9
SCENES, UNSEEN_SCENES, STEPS = 3000, 100, 1500
LOG_EVERY = 50


def collect(name: str, scenes: int, seed: int, questions_per_image: int) -> None:
    run(
        OUTPUT / "logs" / f"{name}.log",
        BIN / "lerobot-gem-libero-demos",
        "--qa",
        f"--qa.questions_per_image={questions_per_image}",
        "--mode=scenes",
        f"--suite={SUITE}",
        f"--task_ids=[{TASK_ID}]",
        f"--scenes_per_task={scenes}",
        f"--image_size={IMAGE_SIZE}",
        "--depth=false",
        f"--seed={seed}",
        "--output.repo_id=local/answer_questions",
        f"--output.root={OUTPUT / name}",
        "--num_workers=2",
        "--resume=true",
    )


def learn() -> None:
    """Stage `joint` from random weights and without depth: the loss of the language alone."""
    train(
        OUTPUT,
        "train",
        "gem_tiny_stage1",
        "--policy.stage=joint",
        "--policy.depth.loss_weight=0",
        "--policy.backbone.freeze_vision_tower=false",
        "--dataset.repo_id=local/answer_questions",
        steps=STEPS,
        log_every=LOG_EVERY,
    )


def score() -> None:
    shutil.rmtree(OUTPUT / "scores", ignore_errors=True)  # of a run that was interrupted
    run(
        OUTPUT / "logs" / "scores.log",
        BIN / "lerobot-gem-eval-vqa",
        f"--policy.path={checkpoint(OUTPUT, 'train')}",
        "--dataset.repo_id=local/answer_questions",
        f"--dataset.root={OUTPUT / 'unseen'}",
        "--max_new_tokens=64",
        "--batch_size=32",
        f"--output_dir={OUTPUT / 'scores'}",
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--fresh", action="store_true", help="delete outputs/answer_questions first")
    if arguments.parse_args().fresh:
        shutil.rmtree(OUTPUT, ignore_errors=True)
    steps = {
        "collect": (OUTPUT / "data" / "meta" / "info.json", lambda: collect("data", SCENES, 0, 2)),
        # All that can be asked: the boxes of objects tell whether points are on them.
        "collect unseen": (
            OUTPUT / "unseen" / "meta" / "info.json",
            lambda: collect("unseen", UNSEEN_SCENES, 1, 12),
        ),
        "train": (trained(OUTPUT, "train"), learn),
        "score": (OUTPUT / "scores" / "scores.json", score),
    }
    minutes = run_steps(OUTPUT, steps)
    print("\nMinutes: " + ", ".join(f"{step} {spent:.1f}" for step, spent in minutes.items()))
    print(f"See {OUTPUT / 'scores'}")


if __name__ == "__main__":
    main()
