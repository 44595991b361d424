"""What is said of datasets that LeRobot would not open."""

import json
from pathlib import Path

import pytest

from lerobot_gem.storage.opening import require_current_format


def _write(root: Path, version: str) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps({"codebase_version": version}))
    return root


def test_a_current_dataset_and_one_on_the_hub_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lerobot.utils.constants.HF_LEROBOT_HOME", tmp_path / "home")
    root = _write(tmp_path / "set", "v3.0")
    assert require_current_format("you/set", root) == root
    assert require_current_format("you/set", None) == tmp_path / "home" / "you" / "set"


def test_a_folder_without_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"No dataset in {tmp_path}: .*meta/info.json.*repo id"):
        require_current_format("you/set", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("version", "advice"), [("v2.1", "--push-to-hub=false`."), ("v2.0", "bring it to v2.1")]
)
def test_an_older_format_names_the_converter_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, advice: str
) -> None:
    monkeypatch.setattr("lerobot.utils.constants.HF_LEROBOT_HOME", tmp_path)
    root = _write(tmp_path / "you" / "set", version)
    for given in (root, None):
        with pytest.raises(ValueError, match=rf"format {version}.*convert_dataset_v21_to_v30") as caught:
            require_current_format("you/set", given)
        assert f"--repo-id=you/set --root={root}" in str(caught.value) and advice in str(caught.value)
