"""A training that starts from a checkpoint is not told what would have no effect, or save nothing that loads."""

import sys
from pathlib import Path

import pytest

from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.start import check_start

PATH = "--policy.path=me/policy"


def start(monkeypatch: pytest.MonkeyPatch, *options: str, adapter: bool = False) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *options])
    config = GemVLAConfig(preset="tiny", device="cpu")
    config.use_peft = adapter
    check_start(config)


@pytest.mark.parametrize("part", ["backbone", "expert", "depth"])
def test_other_weights_beside_a_checkpoint_are_one_error(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = f"--policy.{part}.pretrained=me/other"
    message = f"{given} beside {PATH}, whose own weights are taken: .*--policy.type=gem_vla in place of"
    with pytest.raises(ValueError, match=message):
        start(monkeypatch, PATH, given)
    start(monkeypatch, PATH, f"--policy.{part}.pretrained=null")
    start(monkeypatch, given)
    start(monkeypatch, PATH)


def test_an_adapter_goes_on_as_an_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, content in (("with", "peft: {method_type: LORA}"), ("without", "steps: 2")):
        (tmp_path / f"{name}.yaml").write_text(content)
    with_peft, without = (f"--config_path={tmp_path / name}.yaml" for name in ("with", "without"))
    for options in ([PATH], [PATH, without]):
        with pytest.raises(ValueError, match="is an adapter, and --peft.method_type=LORA is missing"):
            start(monkeypatch, *options, adapter=True)
    start(monkeypatch, PATH, "--peft.method_type=LORA", adapter=True)
    start(monkeypatch, PATH, with_peft, adapter=True)
    start(monkeypatch, with_peft, "--resume=true", adapter=True)
    start(monkeypatch, PATH)
