"""The four stages of GEM with LeRobot's unmodified commands, a few steps each, as subprocesses."""

import re
from pathlib import Path

import pytest
import torch

from tests.conftest import CAMERAS
from tests.test_command_line import BIN, TINY, run

CONFIGS = TINY.parent


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
def test_four_stages_end_in_a_policy_that_acts(depth_data_set: Path, tmp_path: Path):
    # An autoencoder of random weights is acknowledged in the first stage; the others find it in the checkpoint.
    log, checkpoint = train(
        "gem_tiny_stage1",
        depth_data_set,
        tmp_path / "stage1",
        "--policy.depth.autoencoder=null",
        "--policy.allow_untrained=true",
    )
    assert "connector: " in log and "transformer: " in log
    for stage, losses in {"stage2": ("depth_loss",), "stage3": ("depth_loss", "language_loss")}.items():
        log, checkpoint = train(
            f"gem_tiny_{stage}",
            depth_data_set,
            tmp_path / stage,
            f"--policy.path={checkpoint}",
            "--policy.allow_untrained=false",
        )
        for loss in (*losses, "frames_with_language", "frames_with_depth"):
            assert re.search(rf"{loss}:\d", log), (stage, loss)
        assert ("token_accuracy" in log) == (stage == "stage3")

    log, checkpoint = train(
        "gem_vla_tiny_depth",
        depth_data_set,
        tmp_path / "stage4",
        f"--policy.backbone.pretrained={checkpoint}",
    )
    assert re.search(r"action_loss:\d.* depth_loss:\d", log)

    from lerobot.policies.factory import make_pre_post_processors

    from lerobot_gem.modeling_gem_vla import GemVLAPolicy

    policy = GemVLAPolicy.from_pretrained(checkpoint)
    preprocess, postprocess = make_pre_post_processors(policy.config, pretrained_path=str(checkpoint))
    observation = {camera: torch.rand(1, 3, 64, 64) for camera in CAMERAS}
    action = postprocess(policy.select_action(preprocess({**observation, "task": ["pick up the milk"]})))
    assert action.shape == (1, policy.expert.action_dim)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_language_rows_reach_the_policy_from_worker_processes(
    depth_data_set: Path, tmp_path: Path, context: str
):
    """All 30 frames in one batch: the three questions of frames 0 and 3 are among the learned answers."""
    arguments = (
        "--policy.depth.autoencoder=null",
        "--policy.allow_untrained=true",
        "--policy.stage=joint",
        "--policy.optimizer_lr=0",
        "--batch_size=30",
    )
    logs = [
        train("gem_tiny_stage1", depth_data_set, tmp_path / name, *arguments, *loading)[0]
        for name, loading in {
            "here": ("--num_workers=0",),
            "workers": ("--num_workers=2", f"--dataloader_multiprocessing_context={context}"),
        }.items()
    ]
    here, workers = (re.findall(r"step:\d+ .*?(language_loss:[\d.]+)", log) for log in logs)
    assert here and here == workers
