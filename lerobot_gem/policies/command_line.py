"""What a command line says and LeRobot would take without a word, though it does nothing, or saves nothing that loads."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lerobot.configs import parser

from lerobot_gem.inference.run_configuration import in_run_file
from lerobot_gem.validation import ConfigurationError

_SOURCES = ("backbone.pretrained", "expert.pretrained", "depth.pretrained")


class _Switch(NamedTuple):
    """An option that others need.

    Attributes:
        name: Of the option.
        value: One that switches it on.
        is_on: Whether it is, in a configuration.
        needed_by: Options that do nothing without it.
    """

    name: str
    value: str
    is_on: Callable[[Any], bool]
    needed_by: tuple[str, ...]


_DEPTH = ("pretrained", "autoencoder", "target", "colormap", "max_side", "cameras", "share", "unit")
_SWITCHES = (
    _Switch(
        "depth.loss_weight",
        "0.1",
        lambda config: "depth" in config.loss_weights,
        tuple(f"depth.{name}" for name in _DEPTH),
    ),
    _Switch(
        "co_training.repo_id",
        "<dataset of questions>",
        lambda config: config.co_training.repo_id is not None,
        ("co_training.share", "co_training.num_workers"),
    ),
    _Switch(
        "action_tokens.loss_weight",
        "1",
        lambda config: config.learns_tokens,
        ("action_tokens.vocabulary", "action_tokens.scale"),
    ),
    _Switch(
        "action_tokens.act",
        "tokens",
        lambda config: config.action_tokens.act == "tokens",
        ("action_tokens.temperature", "action_tokens.max_coefficients"),
    ),
)
# Of the expert's options, what a student does not learn.
_OF_A_FLOW = ("expert.num_inference_steps", "expert.time_distribution", "expert.state_noise_snr")


def check_switches(config: Any) -> None:
    """Look for options of the command line that do nothing, since what they belong to is off.

    Options in a file may be there for other runs, and so may those beside a switch that is typed too, such as
    `--policy.depth.loss_weight=0` behind the options of a run with depth.

    Args:
        config: Of the policy that is trained, or acts.

    Raises:
        ConfigurationError: There is one.
    """
    given = parser.get_cli_overrides("policy") or []
    if getattr(config, "distillation", None) is not None and config.distillation.teacher is not None:
        _check_student(given)
    for switch in _SWITCHES:
        if parser.parse_arg(switch.name, given) is not None:
            continue
        for name in switch.needed_by:
            value = parser.parse_arg(name, given)
            if value not in (None, "null") and not switch.is_on(config):
                raise ConfigurationError(
                    f"--policy.{name}={value} does nothing without --policy.{switch.name}: expected --policy.{switch.name}={switch.value} "
                    "beside it, or neither."
                )


def _check_student(given: list[str]) -> None:
    """Look for options of a flow, which a student of a teacher does not learn, on the command line."""
    for name in _OF_A_FLOW:
        value = parser.parse_arg(name, given)
        if value not in (None, "null") and (name, value) != ("expert.num_inference_steps", "1"):
            raise ConfigurationError(
                f"--policy.{name}={value} does nothing with --policy.distillation.teacher, from which one step is learned: leave it out."
            )


def check_start(config: Any) -> None:
    """Look at the command line of a training with `--policy.path`; a run that is resumed has none, and goes on as it was.

    Args:
        config: Of the policy that is loaded to be trained.

    Raises:
        ValueError: Other weights are named beside the checkpoint's own, which would not be read. Or the checkpoint is an adapter, and
            `--peft` is missing: LeRobot 0.6.1 would save weights without a config.json (`save_checkpoint`), which nothing loads.
    """
    path = parser.get_path_arg("policy")
    if path is None:
        return
    given = parser.get_cli_overrides("policy") or []
    for name in _SOURCES:
        source = parser.parse_arg(name, given)
        if source not in (None, "null"):
            raise ValueError(
                f"--policy.{name}={source} beside --policy.path={path}, whose own weights are taken: expected one of them. A new policy "
                f"(--policy.type={config.type} in place of --policy.path) takes --policy.{name}."
            )
    if config.use_peft and not _is_adapted():
        raise ValueError(
            f"--policy.path={path} is an adapter, and --peft.method_type=LORA is missing, without which LeRobot saves nothing that loads. "
            "Expected it (the adapter goes on at its own rank), or a whole policy (lerobot-gem-convert --format=policy)."
        )


def _is_adapted() -> bool:
    """Whether the command line, or the file that it names, has options of `peft`."""
    return bool(parser.get_cli_overrides("peft") or in_run_file("peft"))
