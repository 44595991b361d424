"""Options of our commands."""

import sys
from collections.abc import Sequence

import draccus
from draccus.utils import DraccusException


def parse_options[Config](config_class: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The configuration that a command line asks for.

    Args:
        config_class: A dataclass.
        arguments: Those of the command line; this process's when None.

    Raises:
        SystemExit: An option is wrong; with what is wrong about it in one line.
    """
    try:
        return draccus.parse(config_class, args=arguments)
    except DraccusException as error:
        # Where a configuration itself refuses a value, draccus says no more than that it couldn't be made.
        reason: BaseException = error
        while "Couldn't instantiate class" in str(reason) and reason.__cause__ is not None:
            reason = reason.__cause__
        sys.exit(f"error: {reason}")
