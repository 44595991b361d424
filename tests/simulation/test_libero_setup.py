"""LIBERO's setup: no questions, no downloads, nothing of the user's changed, clear reports."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lerobot_gem.simulation import libero_setup
from lerobot_gem.simulation.libero_setup import (
    LiberoNotReadyError,
    check_libero,
    choose_config_folder,
    config_file,
    require_libero,
    setup_libero,
)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "not" / "there" / "yet"
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(folder))
    return folder


def test_fresh_configuration_makes_libero_importable_without_a_question(fresh: Path) -> None:
    report = setup_libero()
    assert report.ready, report.problems
    config = yaml.safe_load((fresh / "config.yaml").read_text())
    assert Path(config["bddl_files"], "libero_object").is_dir()
    assert Path(config["init_states"], "libero_object").is_dir()
    # Without a configuration this import reads an answer from stdin.
    code = "from libero.libero import get_assets_path; print(get_assets_path())"
    result = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert (Path(result.stdout.strip().splitlines()[-1]) / "stable_hope_objects").is_dir()


@pytest.mark.parametrize(
    ("is_there", "chosen", "expected"),
    [(True, None, "beside"), (False, None, None), (True, "mine", "mine")],
)
def test_the_configuration_beside_the_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, chosen: str | None, expected: str | None
) -> None:
    """`lerobot-eval` from .venv, without the Makefile, must not ask LIBERO's question on stdin."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("LIBERO_CONFIG_PATH", chosen or "")
    if chosen is None:
        monkeypatch.delenv("LIBERO_CONFIG_PATH")
    if is_there:
        (tmp_path / "libero").mkdir()
        (tmp_path / "libero" / "config.yaml").touch()
    choose_config_folder()
    found = os.environ.get("LIBERO_CONFIG_PATH")
    assert found == (str(tmp_path / "libero") if expected == "beside" else expected)


@pytest.mark.slow
def test_the_plugin_chooses_it_when_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "libero").mkdir()
    (tmp_path / "libero" / "config.yaml").touch()
    code = f"""if True:
        import os, sys
        sys.prefix = {str(tmp_path)!r}
        import lerobot_policy_gem
        print("folder:", os.environ["LIBERO_CONFIG_PATH"])
    """
    environment = {key: value for key, value in os.environ.items() if key != "LIBERO_CONFIG_PATH"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert f"folder: {tmp_path / 'libero'}" in result.stdout


def test_second_run_changes_nothing(fresh: Path) -> None:
    setup_libero()
    before = (fresh / "config.yaml").stat()
    report = setup_libero()
    assert report.ready and not report.done
    assert (fresh / "config.yaml").stat().st_mtime_ns == before.st_mtime_ns


def test_existing_configuration_is_checked_and_never_changed(fresh: Path) -> None:
    fresh.mkdir(parents=True)
    text = "bddl_files: /gone/bddl\nbenchmark_root: /gone\n"
    (fresh / "config.yaml").write_text(text)
    report = setup_libero()
    assert (fresh / "config.yaml").read_text() == text
    assert any("bddl_files: /gone/bddl" in problem for problem in report.problems)
    assert any("no entry 'init_states'" in problem for problem in report.problems)


@pytest.mark.parametrize("text", ["[a, list]", "key: [unclosed"])
def test_unreadable_configuration_is_reported(fresh: Path, text: str) -> None:
    fresh.mkdir(parents=True)
    (fresh / "config.yaml").write_text(text)
    assert any(str(config_file()) in problem and "delete it" in problem for problem in check_libero())


def test_missing_setup_names_the_command(fresh: Path) -> None:
    with pytest.raises(LiberoNotReadyError, match="lerobot-gem-libero-setup"):
        require_libero()
    assert not fresh.exists()


@pytest.mark.parametrize("version", ["3.2.6", "3.4.0"])
def test_mujoco_out_of_range(fresh: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    setup_libero()
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: version if name == "mujoco" else installed(name)
    )
    with pytest.raises(LiberoNotReadyError, match=rf"mujoco {version} is installed.*mujoco>=3.2.7,<3.4"):
        require_libero()


def test_missing_packages_are_named(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libero_setup, "_package_folder", lambda name: None)
    assert any("hf-libero" in problem and "[libero]" in problem for problem in setup_libero().problems)


def test_failing_renderer_names_debian_packages(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(libero_setup, "_can_load", lambda library: False)
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="ImportError: no EGL")
    monkeypatch.setattr(libero_setup.subprocess, "run", lambda *args, **kwargs: failed)
    problems = setup_libero().problems
    assert any("apt-get install libegl1 libegl-mesa0" in problem for problem in problems)
