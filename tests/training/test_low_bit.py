"""The 8-bit optimiser as LeRobot's configuration."""

import pytest
from lerobot.optim import OptimizerConfig

from lerobot_gem.training import low_bit


def test_lerobot_knows_it_by_name():
    assert OptimizerConfig.get_choice_class("gem_adamw_8bit") is low_bit.AdamW8bitConfig


def test_without_torchao_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(low_bit, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"adamw_8bit.*pip install '\.\[low-memory\]' in a clone"):
        low_bit.AdamW8bitConfig().build([])
