"""How the fields of configurations are checked, and the errors that draccus shows."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from draccus.utils import ParsingError


class ConfigurationError(ParsingError):
    """A configuration that makes no sense.

    No ValueError: of those, draccus says but "Couldn't instantiate class GemConfig using the given arguments" on the
    command line, and keeps the reason to itself.
    """


def checked[T](post_init: Callable[[T], None]) -> Callable[[T], None]:
    """Decorate a `__post_init__` so that its ValueErrors become ConfigurationErrors."""

    @wraps(post_init)
    def wrapped(self: T) -> None:
        try:
            post_init(self)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    return wrapped


def require(value: Any, known: tuple[Any, ...], field_name: str) -> None:
    """Raise a ValueError that names the field unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{field_name}={value!r} is unknown: expected one of {', '.join(map(repr, known))}.")


def require_at_least(config: Any, **least: float) -> None:
    """Raise a ValueError that names the field unless each of these fields of a configuration is None or at least so much."""
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not value >= bound:
            raise ValueError(f"{name}={value}: expected at least {bound}.")
