"""`lerobot-gem-depth-viz` as users call it."""

import sys
from pathlib import Path

import pytest

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.scripts.depth_viz import main


def test_a_wrong_option_of_the_checkpoint_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    GemConfig(preset="tiny", device="cpu").save_pretrained(tmp_path)
    options = [f"--policy.path={tmp_path}", "--policy.depth.num_inference_steps=abc", "--output_dir=strips"]
    monkeypatch.setattr(sys, "argv", ["lerobot-gem-depth-viz", *options, "--dataset.repo_id=local/none"])
    with pytest.raises(SystemExit, match=r"^error: .*num_inference_steps.*'abc'"):
        main()
