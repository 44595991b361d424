"""`lerobot-gem-card` writes what LeRobot would push, into the checkpoint's folder."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig

from lerobot_gem.policies.base_options import BackboneConfig
from lerobot_gem.scripts.card import main
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save  # noqa: F401 (fixture)
from tests.results.test_eval_info import write_eval_info


@pytest.fixture
def checkpoint(make_policy, dataset_root: Path, tmp_path: Path) -> Path:
    """A run's last checkpoint, with an evaluation below the run's folder; trained elsewhere."""
    policy, *_ = make_policy()
    folder = tmp_path / "run" / "checkpoints" / "000002" / "pretrained_model"
    policy.save_pretrained(folder)
    dataset = DatasetConfig("me/data", root=str(dataset_root))
    TrainPipelineConfig(
        dataset, policy=policy.config, steps=7, output_dir=Path("/elsewhere")
    ).save_pretrained(folder)
    folder.parent.with_name("last").symlink_to("000002")
    write_eval_info(tmp_path / "run" / "eval", {("libero_object", 9): [True] * 26 + [False] * 4})
    return folder.parent.with_name("last") / "pretrained_model"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-gem-card", "--repo_id=me/mine", *arguments])
    main()


def test_the_card_tells_of_training_and_of_the_evaluation_beside_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, f"--policy.path={checkpoint}")
    card = (checkpoint / "README.md").read_text()
    assert "| eval | libero_object | 9 | 30 | 86.7% | 70.3% to 94.7% |" in card
    assert "--policy.path=me/mine" in card and "datasets/me/data" in card and "| steps | 7 |" in card
    assert f"hf upload me/mine {checkpoint}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"README\.md is there: expected no card"):
        run(monkeypatch, f"--policy.path={checkpoint}")


def test_processors_that_could_run_code_get_no_card(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {
        "name": "policy_preprocessor",
        "steps": [{"class": "subprocess.Popen", "config": {"args": ["true"]}}],
    }
    (checkpoint / "policy_preprocessor.json").write_text(json.dumps(steps))
    with pytest.raises(SystemExit, match=r"names a step by the path of a class \('subprocess\.Popen'\)"):
        run(monkeypatch, f"--policy.path={checkpoint}")
    assert not (checkpoint / "README.md").exists() and not (checkpoint / "assets").exists()


def test_pefts_empty_template_is_replaced_and_nothing_else(
    checkpoint: Path,
    make_policy: Callable,
    gem_checkpoint: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, *_ = make_policy(backbone=BackboneConfig(pretrained=gem_checkpoint))
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    card = checkpoint / "README.md"
    for _ in range(2):  # the second time, PEFT finds what the first wrote
        save(checkpoint, adapted, adapted.config)
    template = card.read_text()
    assert "[More Information Needed]" in template
    card.write_text(template.replace("[More Information Needed]", "A text of mine", 1))
    with pytest.raises(SystemExit, match=r"README\.md is there: expected no card, or PEFT's empty template"):
        run(monkeypatch, f"--policy.path={checkpoint}")
    assert "A text of mine" in card.read_text()
    card.write_text(template)
    run(monkeypatch, f"--policy.path={checkpoint}")
    assert "An adapter (LoRA) for" in card.read_text() and "Model ID" not in card.read_text()


def test_mistakes_are_one_sentence(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SystemExit, match=r"run has no train_config\.json: expected the folder pretrained_model"
    ):
        run(monkeypatch, f"--policy.path={tmp_path / 'run'}")
    with pytest.raises(SystemExit, match="nowhere"):
        run(monkeypatch, f"--policy.path={checkpoint}", "--dataset.root=nowhere")
    assert not (checkpoint / "README.md").exists()


@pytest.mark.parametrize("repo_id", ["me/mine/again", "me/my policy", "--me"])
def test_what_is_no_hub_id_is_refused(
    repo_id: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=f"--repo_id={repo_id}: expected a Hub id such as you/your_policy"):
        run(monkeypatch, f"--policy.path={checkpoint}", f"--repo_id={repo_id}")


def test_a_video_that_cannot_be_read_is_named_and_left_out(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    video = checkpoint.parents[2] / "eval" / "videos" / "libero_object_9" / "eval_episode_0.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"cut short")
    run(monkeypatch, f"--policy.path={checkpoint}")
    assert f"no picture of rollout: {video.resolve()} can't be read" in caplog.text
    assert "assets/" not in (checkpoint / "README.md").read_text()


def test_what_lies_around_a_checkpoint_that_was_copied_elsewhere_is_not_shown(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(checkpoint, tmp_path / "run" / "models" / "mine" / "policy"))
    run(monkeypatch, f"--policy.path={copied}")
    assert "None lies beside the checkpoint." in (copied / "README.md").read_text()
