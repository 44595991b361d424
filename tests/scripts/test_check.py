"""`lerobot-gem-check` as users call it."""

import subprocess
import sys
from pathlib import Path

import pytest

from lerobot_gem.scripts.check import main, name_dataset
from tests.test_command_line import TINY


def call(monkeypatch: pytest.MonkeyPatch, capsys, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output and errors of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["lerobot-gem-check", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    output, code = capsys.readouterr(), stopped.value.code
    # Python itself prints a reason, and exits with 1.
    return (1, output.out, f"{output.err}{code}\n") if isinstance(code, str) else (code, *output)


def test_a_folder_or_a_repo_id_comes_first_or_in_lerobots_options(tmp_path: Path):
    assert name_dataset([str(tmp_path), "--seed=1"]) == [
        f"--dataset.repo_id=local/{tmp_path.name}",
        f"--dataset.root={tmp_path}",
        "--seed=1",
    ]
    assert name_dataset(["you/data"]) == ["--dataset.repo_id=you/data"]
    assert name_dataset(["--dataset.repo_id=you/data"]) == ["--dataset.repo_id=you/data"]
    with pytest.raises(FileNotFoundError, match="No folder ./nothing"):
        name_dataset(["./nothing"])


def test_a_good_dataset_exits_with_0_and_writes_the_page(
    depth_dataset_root: Path, tmp_path: Path, monkeypatch, capsys
):
    page = tmp_path / "page.html"
    code, output, _ = call(
        monkeypatch, capsys, depth_dataset_root, f"--html={page}", "--dataset.video_backend=pyav"
    )
    assert code == 0
    assert "ready for the stages it is made for" in output
    assert page.read_text().count('<div class="frame">') == 2


def test_what_lerobot_train_is_called_with_can_be_checked(
    dataset_root: Path, tmp_path: Path, monkeypatch, capsys
):
    """The same file and options; that the output folder exists does not matter."""
    options = (
        f"--config_path={TINY}",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={dataset_root}",
        f"--output_dir={tmp_path}",
        "--dataset.video_backend=pyav",
    )
    code, output, _ = call(monkeypatch, capsys, *options)
    assert code == 0 and "ready for stage action" in output
    code, output, _ = call(monkeypatch, capsys, *options, '--policy.cameras.names=["observation.images.top"]')
    assert code == 1 and "cameras.names has unknown entries ['observation.images.top']" in output


def test_a_wrong_option_is_one_line(depth_dataset_root: Path, monkeypatch, capsys):
    code, output, errors = call(monkeypatch, capsys, depth_dataset_root, "--num_frames=0")
    assert (code, output, errors) == (1, "", "error: num_frames=0: expected at least 1.\n")
    # Of LeRobot's own configuration, whose reason draccus keeps to itself.
    code, _, errors = call(monkeypatch, capsys, depth_dataset_root, "--dataset.eval_split=-0.5")
    assert code == 1 and "eval_split" in errors and "Couldn't instantiate" not in errors


@pytest.mark.slow
def test_a_checkpoint_is_checked_as_it_would_be_trained_on(
    depth_dataset_root: Path, make_gem, tmp_path: Path, monkeypatch, capsys
):
    policy, preprocess, postprocess = make_gem(stage="joint")
    for part in (policy, preprocess, postprocess):
        part.save_pretrained(tmp_path / "checkpoint")
    code, output, _ = call(
        monkeypatch, capsys, depth_dataset_root, f"--policy.path={tmp_path / 'checkpoint'}"
    )
    assert code == 0 and "ready for stage joint" in output


def test_a_dataset_that_is_not_there_exits_with_1(tmp_path: Path, monkeypatch, capsys):
    code, output, errors = call(monkeypatch, capsys, f"{tmp_path}/nothing")
    assert (code, output) == (1, "")
    assert errors == (
        f"error: No folder {tmp_path}/nothing: expected the root folder of a dataset, or a repo id.\n"
    )


@pytest.mark.slow
def test_the_command_runs_as_a_process(dataset_root: Path):
    command = [sys.executable, "-m", "lerobot_gem.scripts.check", str(dataset_root)]
    bad = subprocess.run(
        [*command, "--policy.type=gem", "--policy.preset=tiny"], capture_output=True, text=True, timeout=600
    )
    assert bad.returncode == 1, bad.stderr[-2000:]
    assert "No depth for the cameras" in bad.stdout and "1 error(s) for stage connector" in bad.stdout
