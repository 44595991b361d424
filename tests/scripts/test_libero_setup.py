"""The command line of lerobot-gem-libero-setup."""

from pathlib import Path

import pytest

from lerobot_gem.scripts.libero_setup import main
from lerobot_gem.simulation import libero_setup


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "file" / "libero"))
    monkeypatch.setattr(libero_setup, "libero_root", lambda: tmp_path)
    monkeypatch.setattr("sys.argv", ["lerobot-gem-libero-setup"])
    with pytest.raises(SystemExit, match=f"^error: .*Not a directory: '{tmp_path}/file/libero'"):
        main()
