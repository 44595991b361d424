"""The four stages of GEM with LeRobot's unmodified commands, a few steps each, as subprocesses."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from lerobot_gem.training.stages import PARTS
from tests.conftest import CAMERAS, write_dataset
from tests.test_command_line import BIN, TINY, run

CONFIGS = TINY.parent
SCRIPT = (sys.executable, "-m")


def train(name: str, data: Path, output: Path, *arguments: str) -> tuple[str, Path]:
    """Log and checkpoint of two steps."""
    log = run(
        BIN / "lerobot-train",
        f"--config_path={CONFIGS / name}.yaml",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={data}",
        f"--output_dir={output}",
        "--steps=2",
        "--save_freq=2",
        "--log_freq=1",
        "--batch_size=4",
        "--num_workers=0",
        *arguments,
    )
    return log, output / "checkpoints" / "last" / "pretrained_model"


@pytest.mark.slow
def test_all_stages_end_in_depth_to_look_at_and_in_a_policy_that_acts(
    depth_dataset_root: Path, tmp_path: Path
):
    """Stage 1 learns from questions about single images without any action, the others from robot data."""
    text = '[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]'
    questions = write_dataset(tmp_path / "vqa", depth=True, state_dim=0, action_dim=0, messages=text)
    log, checkpoint = train("gem_tiny_stage1", questions, tmp_path / "stage1")
    check_logs(log, learns={"connector"}, losses={"depth_loss"})
    log, checkpoint = train(
        "gem_tiny_stage2", depth_dataset_root, tmp_path / "stage2", f"--policy.path={checkpoint}"
    )
    check_logs(log, learns={"connector", "transformer"}, losses={"depth_loss"})
    log, checkpoint = train(
        "gem_tiny_stage3", depth_dataset_root, tmp_path / "stage3", f"--policy.path={checkpoint}"
    )
    vlm = {"language_model", "merger", "vision_tower"}
    check_logs(log, learns={*vlm, "connector", "transformer"}, losses={"language_loss", "depth_loss"})
    assert re.search(r"token_accuracy:\d", log)

    log = run(
        *SCRIPT,
        "lerobot_gem.scripts.depth_viz",
        f"--policy.path={checkpoint}",
        "--policy.depth.num_inference_steps=2",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={depth_dataset_root}",
        "--dataset.episodes=[1]",
        "--num_frames=2",
        f"--output_dir={tmp_path / 'depth'}",
    )
    assert all(re.search(rf"{camera} +2 +0 +generated +\d", log) for camera in CAMERAS)
    metrics = json.loads((tmp_path / "depth" / "metrics.json").read_text())
    assert (metrics["num_inference_steps"], metrics["cameras"][CAMERAS[0]]["n"]) == (2, 2)
    assert {path.name for path in (tmp_path / "depth").iterdir()} == {"depth.mp4", "frames", "metrics.json"}

    log, checkpoint = train(
        "gem_vla_tiny_depth",
        depth_dataset_root,
        tmp_path / "stage4",
        f"--policy.backbone.pretrained={checkpoint}",
    )
    check_logs(log, learns={*vlm, "connector", "transformer", "expert"}, losses={"action_loss", "depth_loss"})
    assert_acts(checkpoint)


def check_logs(log: str, *, learns: set[str], losses: set[str]) -> None:
    acts = "expert" in learns
    parts = PARTS.keys() if acts else PARTS.keys() - {"expert"}
    assert set(re.findall(r"(\w+): [\d.]+ M parameters, trainable", log)) == learns
    assert set(re.findall(r"(\w+): [\d.]+ M parameters, frozen", log)) == parts - learns
    shares = {"frames_with_depth", "images_without_depth", *(() if acts else ("frames_with_language",))}
    logged = set(re.findall(r"\b(\w+):[\d.]+", log))
    assert shares <= logged
    assert {name for name in logged if name.endswith("_loss")} == losses


def assert_acts(checkpoint: Path) -> None:
    from lerobot.policies.factory import make_pre_post_processors

    from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy

    policy = GemVLAPolicy.from_pretrained(checkpoint)
    preprocess, postprocess = make_pre_post_processors(policy.config, pretrained_path=str(checkpoint))
    observation = {camera: torch.rand(1, 3, 64, 64) for camera in CAMERAS}
    action = postprocess(policy.select_action(preprocess({**observation, "task": ["pick up the milk"]})))
    assert action.shape == (1, policy.expert.action_dim)


@pytest.mark.slow
def test_language_rows_reach_the_policy_from_worker_processes(depth_dataset_root: Path, tmp_path: Path):
    """All 30 frames in one batch: the three questions of frames 0 and 3 are among the learned answers."""
    arguments = (
        "--policy.allow_untrained=true",
        "--policy.stage=joint",
        "--policy.optimizer_lr=1e-12",
        "--batch_size=30",
    )
    losses = {
        name: re.findall(
            r"step:\d+ .*?(language_loss:[\d.]+)",
            train("gem_tiny_stage1", depth_dataset_root, tmp_path / name, *arguments, *loading)[0],
        )
        for name, loading in {
            "here": ("--num_workers=0",),
            "workers": ("--num_workers=2", "--dataloader_multiprocessing_context=spawn"),
        }.items()
    }
    assert losses["here"] and losses["here"] == losses["workers"]
