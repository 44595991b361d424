"""A run of lerobot-train that is killed and goes on ends with the bits of one that was not."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.test_command_line import BIN, run

SAVED_EVERY = 3

OPTIONS = (
    "--dataset.repo_id=local/noise",
    f"--save_freq={SAVED_EVERY}",
    "--log_freq=1",
    "--env_eval_freq=0",
    "--batch_size=4",
    "--dataloader_multiprocessing_context=fork",
    "--policy.preset=tiny",
    "--policy.device=cpu",
    "--policy.dtype=float32",
    "--policy.optimizer_lr=0.002",
    "--policy.scheduler_name=constant_with_warmup",  # that of `gem` ends with the run, whose end differs here
    "--policy.depth.share=0.5",
    "--policy.micro_batch_size=2",
)
ACTION_OPTIONS = (
    "--policy.chunk_size=4",
    "--policy.n_action_steps=2",
    "--policy.depth.loss_weight=0.1",
    "--policy.camera_dropout=0.3",
    "--policy.instruction_dropout=0.3",
    "--policy.expert.state_noise_snr=40",
)


@pytest.fixture(scope="module")
def command(depth_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that gives the command of a run of a policy; that of `gem_vla` starts from a `gem` of one step."""
    gem = tmp_path_factory.mktemp("gem") / "run"
    train = (str(BIN / "lerobot-train"), *OPTIONS, f"--dataset.root={depth_dataset_root}")

    def build(policy_type: str) -> list[str]:
        if policy_type == "gem":
            return [*train, "--policy.type=gem", "--policy.stage=joint", "--policy.allow_untrained=true"]
        if not gem.exists():
            run(*build("gem"), f"--output_dir={gem}", "--steps=1", "--num_workers=0")
        pretrained = gem / "checkpoints" / "last" / "pretrained_model"
        return [
            *train,
            "--policy.type=gem_vla",
            f"--policy.backbone.pretrained={pretrained}",
            *ACTION_OPTIONS,
        ]

    return build


def kill_after_first_checkpoint(command: list[str], output: Path) -> int:
    """The step of the last checkpoint of a run that is killed."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    last = output / "checkpoints" / "last"
    deadline = time.monotonic() + 500
    while not last.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return int(last.resolve().name)


@pytest.mark.slow
@pytest.mark.parametrize("policy_type", ["gem", "gem_vla"])
def test_a_killed_run_goes_on_bit_for_bit(policy_type: str, command, tmp_path: Path):
    """With other processes that read than the run that was not killed."""
    train = command(policy_type)
    whole, output = tmp_path / "whole", tmp_path / "killed"
    run(*train, f"--output_dir={whole}", f"--steps={4 * SAVED_EVERY}", "--num_workers=0")
    killed_at = kill_after_first_checkpoint(
        [*train, f"--output_dir={output}", "--steps=100000", "--num_workers=2"], output
    )
    end = killed_at + SAVED_EVERY
    config = output / "checkpoints" / "last" / "pretrained_model" / "train_config.json"
    run(BIN / "lerobot-train", f"--config_path={config}", "--resume=true", f"--steps={end}")
    for file in ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"):
        resumed, expected = (load_file(root / "checkpoints" / f"{end:06}" / file) for root in (output, whole))
        assert resumed.keys() == expected.keys()
        assert not [name for name, value in expected.items() if not value.equal(resumed[name])]
    saved = json.loads((output / "checkpoints" / "last" / "pretrained_model" / "config.json").read_text())
    assert saved["built"]["steps_done"] == end
