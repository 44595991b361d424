"""The command line of lerobot-gem-libero-demos."""

from pathlib import Path

import pytest

from lerobot_gem.data.libero_demos import collecting
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.scripts.libero_demos import main, parse
from lerobot_gem.simulation.libero_setup import LiberoNotReadyError


def test_parses_from_the_command_line(tmp_path: Path) -> None:
    config = parse([f"--output.root={tmp_path}/a", "--task_ids=[0, 3]", "--depth=false", "--resume=true"])
    assert (
        config.task_ids == [0, 3]
        and not config.depth
        and config.resume
        and config.output.root == tmp_path / "a"
    )
    assert config.output.repo_id == "local/a"
    assert config.qa is None
    config = parse(
        [f"--output.root={tmp_path}/a", "--mode=scenes", "--scenes_per_task=9", "--qa.kinds=[box, point]"]
    )
    assert config.episodes_per_task == 0 and config.qa is not None and config.qa.asked() == ["point", "box"]


def test_demonstrations_of_liberos(tmp_path: Path) -> None:
    config = parse(
        [f"--output.root={tmp_path}/a", f"--source={tmp_path}", "--suite=libero_90", "--drop_noops=false"]
    )
    assert config.source == tmp_path and not config.drop_noops
    assert parse([f"--output.root={tmp_path}/a"]).source is None


def test_questions_are_switched_on_by_a_flag(tmp_path: Path) -> None:
    for flag in ("--qa", "--qa=true"):
        assert parse([f"--output.root={tmp_path}/a", flag]).qa == QuestionsConfig()
    assert parse([f"--output.root={tmp_path}/a", "--qa=false"]).qa is None
    config = parse([f"--output.root={tmp_path}/a", "--qa.questions_per_image=3", "--qa"])
    assert config.qa == QuestionsConfig(questions_per_image=3)


def test_what_the_simulator_lacks_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_ready() -> None:
        raise LiberoNotReadyError("LIBERO is not ready. Run lerobot-gem-libero-setup once")

    monkeypatch.setattr(collecting, "require_libero", not_ready)
    monkeypatch.setattr("sys.argv", ["lerobot-gem-libero-demos", f"--output.root={tmp_path}/a"])
    with pytest.raises(SystemExit, match="^error: LIBERO is not ready. Run lerobot-gem-libero-setup"):
        main()
