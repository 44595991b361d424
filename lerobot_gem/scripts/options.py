"""Options of our commands: how they are parsed, and what `--help` says of them."""

import inspect
import re
import sys
from argparse import Action
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from draccus.argparsing import ArgumentParser
from draccus.help_formatter import SimpleHelpFormatter
from draccus.utils import DraccusException


def parse_options[Config](config_class: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The configuration that a command line asks for.

    Args:
        config_class: A dataclass.
        arguments: Those of the command line; this process's when None.

    Raises:
        DraccusException: An option is wrong (`mistakes_in_one_line`).
    """
    parser: ArgumentParser[Config] = ArgumentParser(
        config_class, formatter_class=_formatter(config_class), usage="%(prog)s --option=value ..."
    )
    return parser.parse_args(arguments)


@contextmanager
def mistakes_in_one_line(*others: type[Exception]) -> Iterator[None]:
    """End the command with the message of an error that a user can mend, instead of a traceback.

    Args:
        *others: Errors that are such mistakes in this command, beside wrong options, values, files and folders.

    Raises:
        SystemExit: An option, a value, a file or a folder is not what was expected.
    """
    mistakes: tuple[type[Exception], ...] = (DraccusException, ValueError, OSError, *others)
    try:
        yield
    except mistakes as error:
        sys.exit(f"error: {_refusal(error)}")


def _refusal(error: BaseException) -> BaseException:
    """Why an option is refused: where a configuration itself refuses a value, draccus says no more than that it couldn't be made."""
    while "Couldn't instantiate class" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return error


@dataclass(frozen=True)
class Option:
    """An option of a command line.

    Attributes:
        name: With dots, as behind `--`.
        default: The value that it has when none is given; MISSING where one must be.
        meaning: From the "Attributes" in the docstring of the dataclass that has it; empty where it tells none.
    """

    name: str
    default: Any
    meaning: str


def options_of(
    config_class: type, prefix: str = "", *, without: Collection[str] = (), closed: Collection[type] = ()
) -> Iterator[Option]:
    """The options of a dataclass, those of the dataclasses in its fields in their place.

    Args:
        config_class: A dataclass.
        prefix: Of the options' names, such as "dataset.".
        without: Names of fields that are left out.
        closed: Dataclasses that are one option, whatever they hold.
    """
    meanings = attribute_meanings(config_class)
    types = get_type_hints(config_class)
    for field in fields(config_class):
        if not field.init or field.name in without:
            continue
        choices = (types[field.name], *get_args(types[field.name]))  # of an optional part, too
        if parts := [c for c in choices if isinstance(c, type) and is_dataclass(c) and c not in closed]:
            yield from options_of(parts[0], f"{prefix}{field.name}.", closed=closed)
        else:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            yield Option(prefix + field.name, default, meanings.get(field.name, ""))


def attribute_meanings(config_class: type) -> dict[str, str]:
    """The "Attributes" of a dataclass and of its bases, each in one line.

    Args:
        config_class: A dataclass.
    """
    meanings = {}
    for base in reversed(config_class.__mro__):
        attributes = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")[2]
        for name, meaning in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE):
            meanings[name] = " ".join(meaning.split())
    return meanings


def _help(option: Option) -> str:
    told = "required" if option.default is MISSING else f"default: {option.default}"
    return f"{option.meaning} ({told})".lstrip()


def _formatter(config_class: type) -> type[SimpleHelpFormatter]:
    """A formatter like draccus's, with the meanings from the docstrings.

    draccus looks for comments at the fields instead, and prints the docstrings as they are, or parts of the source.
    """
    meanings = {option.name: _help(option) for option in options_of(config_class)}

    class Formatter(SimpleHelpFormatter):
        def add_argument(self, action: Action) -> None:
            # draccus offers a file for all of `--dataset.*`, twice.
            if not (action.help or "").startswith("Config file for"):
                action.help = meanings.get(action.dest, action.help or "").replace("%", "%%")
                super().add_argument(action)

        def add_text(self, text: str | None) -> None:
            """Leave out draccus's text of a group: the headings and the options' meanings say it."""

        def _get_help_string(self, action: Action) -> str | None:
            return action.help  # which tells the default already

    return Formatter
