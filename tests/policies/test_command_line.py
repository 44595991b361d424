"""A command line does not say what would do nothing, or save nothing that loads."""

import sys
from pathlib import Path

import pytest

from lerobot_gem.policies.base_options import DepthConfig
from lerobot_gem.policies.command_line import check_start, check_switches
from lerobot_gem.policies.expert_options import DistillationConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.token_options import ActionTokensConfig, CoTrainingConfig
from lerobot_gem.validation import ConfigurationError

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


@pytest.mark.parametrize(
    ("option", "switch", "on"),
    [
        ("depth.share=0.25", "depth.loss_weight=0.1", {"depth": DepthConfig(loss_weight=0.1)}),
        ("depth.pretrained=me/sana", "depth.loss_weight=0.1", {"depth": DepthConfig(loss_weight=0.1)}),
        (
            "co_training.share=0.5",
            "co_training.repo_id=<dataset of questions>",
            {"co_training": CoTrainingConfig(loss_weight=1, repo_id="me/questions")},
        ),
        (
            "action_tokens.vocabulary=128",
            "action_tokens.loss_weight=1",
            {"action_tokens": ActionTokensConfig(loss_weight=1)},
        ),
        (
            "action_tokens.temperature=0.5",
            "action_tokens.act=tokens",
            {"action_tokens": ActionTokensConfig(loss_weight=1, act="tokens")},
        ),
    ],
)
def test_an_option_that_does_nothing_names_its_switch(option, switch, on, monkeypatch: pytest.MonkeyPatch):
    off = GemVLAConfig(preset="tiny", device="cpu")
    message = f"--policy.{option} does nothing without --policy.{switch.split('=')[0]}: expected --policy.{switch} beside it"
    for given in ([f"--policy.{option}"], f"--policy.{option}".split("=")):
        monkeypatch.setattr(sys, "argv", ["lerobot-train", *given])
        with pytest.raises(ConfigurationError, match=message):
            off.get_optimizer_preset()
        check_switches(GemVLAConfig(preset="tiny", device="cpu", **on))
    # Whoever types the switch too knows that it is off: the twin of a run, from the same command.
    monkeypatch.setattr(
        sys, "argv", ["lerobot-train", f"--policy.{option}", f"--policy.{switch.split('=')[0]}=0"]
    )
    off.get_optimizer_preset()
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--policy.{option.split('=')[0]}=null"])
    off.get_optimizer_preset()


def test_stages_1_and_2_paint_depth_without_a_weight(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["lerobot-train", "--policy.depth.share=0.25"])
    GemConfig(preset="tiny", device="cpu", stage="generator").get_optimizer_preset()
    weightless = DepthConfig(loss_weight=0)
    with pytest.raises(ConfigurationError, match=r"--policy.depth.share=0.25 does nothing without"):
        GemConfig(
            preset="tiny", device="cpu", stage="joint", depth=weightless, allow_untrained=True
        ).get_optimizer_preset()


@pytest.mark.parametrize(
    "option",
    ["expert.num_inference_steps=5", "expert.time_distribution=uniform", "expert.state_noise_snr=40"],
)
def test_a_student_learns_no_flow(option: str, monkeypatch: pytest.MonkeyPatch):
    student = GemVLAConfig(preset="tiny", device="cpu", distillation=DistillationConfig(teacher="me/teacher"))
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--policy.{option}"])
    with pytest.raises(
        ConfigurationError, match=f"--policy.{option} does nothing with --policy.distillation.teacher"
    ):
        student.get_optimizer_preset()
    GemVLAConfig(preset="tiny", device="cpu").get_optimizer_preset()
    monkeypatch.setattr(sys, "argv", ["lerobot-train", "--policy.expert.num_inference_steps=1"])
    student.get_optimizer_preset()
