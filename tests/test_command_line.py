"""LeRobot's unmodified commands with --policy.type=gem_vla, as subprocesses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
TINY = Path(__file__).parent.parent / "configs" / "policy" / "gem_vla_tiny.yaml"


def run(*command: str | Path) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def trained(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run of two steps with lerobot-train."""
    output = tmp_path_factory.mktemp("train") / "run"
    log = run(
        BIN / "lerobot-train",
        f"--config_path={TINY}",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={dataset_root}",
        f"--output_dir={output}",
        "--steps=2",
        "--save_freq=2",
        "--log_freq=1",
        "--batch_size=4",
        "--num_workers=0",
        "--policy.optimizer_lr=0.002",
    )
    assert "action_loss" in log
    assert "M parameters, trainable" in log
    return output


def test_train_writes_a_checkpoint_with_the_overridden_rate(trained: Path):
    folder = trained / "checkpoints" / "last" / "pretrained_model"
    assert json.loads((folder / "config.json").read_text())["optimizer_lr"] == 0.002
    assert json.loads((folder / "train_config.json").read_text())["optimizer"]["lr"] == 0.002
    assert (folder / "policy_preprocessor.json").exists()


@pytest.mark.slow
@pytest.mark.libero
def test_a_policy_that_was_converted_to_act_acts_in_libero(trained: Path, tmp_path: Path):
    """As it was trained, tests/hub/test_checkpoints.py evaluates it."""
    policy, acting = trained / "checkpoints" / "last" / "pretrained_model", tmp_path / "acting"
    run(BIN / "lerobot-gem-convert", f"--policy.path={policy}", f"--output_dir={acting}", "--format=acting")
    run(
        BIN / "lerobot-eval",
        f"--policy.path={acting}",
        "--env.type=libero",
        "--env.task=libero_object",
        "--env.task_ids=[0]",
        "--env.fps=5",
        "--env.episode_length=3",
        "--env.observation_height=64",
        "--env.observation_width=64",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        f"--output_dir={tmp_path}",
    )
    [task] = json.loads((tmp_path / "eval_info.json").read_text())["per_task"]
    assert len(task["metrics"]["successes"]) == 1
    [video] = task["metrics"]["video_paths"]
    assert Path(video).stat().st_size > 0


@pytest.mark.slow
def test_a_student_learns_from_it_and_goes_on(trained: Path, dataset_root: Path, tmp_path: Path):
    teacher = trained / "checkpoints" / "last" / "pretrained_model"
    output = tmp_path / "student"
    run(
        BIN / "lerobot-train",
        f"--policy.path={teacher}",
        f"--policy.distillation.teacher={teacher}",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={dataset_root}",
        f"--output_dir={output}",
        *("--steps=1", "--save_freq=1", "--log_freq=1", "--batch_size=2", "--num_workers=0"),
    )
    student = output / "checkpoints" / "last" / "pretrained_model"
    config = json.loads((student / "config.json").read_text())
    assert (config["distillation"]["teacher"], config["expert"]["num_inference_steps"]) == (None, 1)
    train_config = json.loads((student / "train_config.json").read_text())
    assert train_config["policy"]["distillation"]["teacher"] == str(teacher)
    log = run(
        BIN / "lerobot-train",
        f"--config_path={student / 'train_config.json'}",
        *("--resume=true", "--steps=2", "--save_freq=2"),
    )
    assert "step:2" in log
    resumed = json.loads((student / "train_config.json").read_text())
    assert resumed["policy"]["distillation"]["teacher"] == str(teacher)
