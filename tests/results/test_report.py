"""The table of several evaluations, and the command that prints it."""

import json
import sys
from pathlib import Path

import pytest

from lerobot_gem.results.report import make_report, results_beside
from lerobot_gem.scripts.libero_report import main
from tests.results.test_eval_info import write_eval_info

TASKS = ("libero_object", 1), ("libero_object", 2)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    write_eval_info(tmp_path / "one", {TASKS[0]: [True] * 6, TASKS[1]: [True, False]})
    write_eval_info(tmp_path / "two", {TASKS[0]: [False] * 6, TASKS[1]: [True, False]}, wrong=2)
    return {"one": tmp_path / "one", "two": tmp_path / "two"}


def test_table(folders: dict[str, Path]) -> None:
    report = make_report({"one": folders["one"]})
    text = report.markdown()
    assert "| one | libero_object | 1 | 6 | 100.0% | 61.0% to 100.0% |" in text
    assert "| one | libero_object | all | 8 | 87.5% |" in text
    assert "own object" not in text and "McNemar" not in text and "Versions where" in text
    text = make_report(folders).markdown()
    assert "| one | two | 8 | 6 | 0 | 0.031 |" in text
    # Two of six episodes, and one of two, ended with the task's own object.
    assert "| two | libero_object | 1 | 6 | 0.0% | 0.0% to 39.0% | 33.3% |" in text
    assert "| two | libero_object | all | 8 | 12.5% | 2.2% to 47.1% | 37.5% |" in text


def test_command(folders: dict[str, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    named = f"--evaluations={{one: {folders['one']}, two: {folders['two']}}}"
    monkeypatch.setattr(sys, "argv", ["report", named, f"--output_dir={tmp_path / 'report'}"])
    main()
    assert (tmp_path / "report" / "report.md").read_text() in capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["pairs"][0]["first_alone"] == 6 and data["evaluations"]["one"][2]["episodes"] == 8
    assert set(data["versions_where_reported"]) == {"mujoco", "lerobot", "lerobot_policy_gem"}
    with pytest.raises(SystemExit, match="not an empty folder"):
        main()


def test_evaluations_of_a_run(folders: dict[str, Path], tmp_path: Path) -> None:
    text = results_beside(tmp_path)
    assert text is not None and "| one | libero_object | 1 |" in text and "McNemar" not in text
    assert results_beside(tmp_path / "nothing") is None
