"""A simulator that is missing is named before anything imports it."""

import pytest

from lerobot_gem.simulation import so101_setup


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(so101_setup, "find_spec", lambda name: None if name == "mujoco" else object())
    with pytest.raises(ModuleNotFoundError, match=r"lacks mujoco: .*pip install '.\[so101\]' in a clone"):
        so101_setup.require_so101()


def test_all_there(monkeypatch):
    monkeypatch.setattr(so101_setup, "find_spec", lambda name: object())
    so101_setup.require_so101()
