"""What the run says that loads a policy: LeRobot hands a policy neither its configuration nor its command line."""

import gc
import sys
from pathlib import Path
from typing import Any

from draccus.cfgparsing import load_config
from lerobot.configs import parser


def run_fields(
    config: Any, module_name: str, class_name: str, *, itself: bool = False
) -> dict[str, Any] | None:
    """The fields of the run's configuration, to be read and written.

    It holds the policy's configuration, so it is looked for among the holders of that.

    Args:
        config: Of the policy that is loaded.
        module_name: Of the run's configuration. Where nobody has imported it, there is no such run.
        class_name: Of the run's configuration.
        itself: Of this class alone, and of none that adds fields to it.

    Returns:
        The fields by name; None where no such run loads the policy.
    """
    module = sys.modules.get(module_name)
    if module is None:
        return None
    names = getattr(module, class_name).__dataclass_fields__.keys()
    for holder in gc.get_referrers(config):
        values = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
        if values.get("policy") is not config:
            continue
        if names == values.keys() or (names <= values.keys() and not itself):
            return values
    return None


def is_given(option: str) -> bool:
    """Whether the user gave an option, on the command line or in a file.

    Args:
        option: Its name, such as "dataset.fps".
    """
    return parser.parse_arg(option) is not None or in_run_file(option) is not None


def in_run_file(option: str) -> Any:
    """What the file says that the command line names as `--config_path`.

    Args:
        option: Name of an option, or of a group of them.

    Returns:
        Its value; None where the file does not say it, or there is no file.
    """
    file = parser.parse_arg("config_path")
    if file is None or not Path(file).is_file():
        return None
    with Path(file).open() as stream:
        values: Any = load_config(stream, file=file)
    for name in option.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values
