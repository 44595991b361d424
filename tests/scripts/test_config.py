"""`lerobot-gem-config` finds the files for --config_path."""

import sys
from pathlib import Path

import pytest

from lerobot_gem.scripts.config import find_config, main, names

ROOT = Path(__file__).parents[2]


def test_every_file_of_configs_is_found_by_its_whole_name():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert [find_config(name).resolve() for name in names()] == files
    assert len(files) > 10


def test_the_last_part_is_enough_where_it_is_one_files():
    assert find_config("gem_vla_2b") == find_config("policy/gem_vla_2b")
    with pytest.raises(
        ValueError, match=r"'libero' is the name of several files.*env/libero, vla_eval/libero\."
    ):
        find_config("libero")
    with pytest.raises(ValueError, match=r"There is no 'gem_vla_3b'.*policy/gem_vla_2b,"):
        find_config("gem_vla_3b")


def test_the_command_prints_a_path_or_all_names(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lerobot-gem-config", "gem_vla_tiny"])
    main()
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("# lerobot-train")
    monkeypatch.setattr(sys, "argv", ["lerobot-gem-config"])
    main()
    assert capsys.readouterr().out.splitlines() == names()
    monkeypatch.setattr(sys, "argv", ["lerobot-gem-config", "../pyproject"])
    with pytest.raises(SystemExit, match="error: There is no"):
        main()
