"""Options of our commands: how they are parsed, and what `--help` says of them."""

import inspect
import re
import sys
from argparse import Action
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import get_args, get_type_hints

from draccus.argparsing import ArgumentParser
from draccus.help_formatter import SimpleHelpFormatter
from draccus.utils import DraccusException


def parse_options[Config](config_class: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The configuration that a command line asks for.

    Args:
        config_class: A dataclass.
        arguments: Those of the command line; this process's when None.

    Raises:
        SystemExit: An option is wrong; with what is wrong about it in one line.
    """
    parser: ArgumentParser[Config] = ArgumentParser(
        config_class, formatter_class=_formatter(config_class), usage="%(prog)s --option=value ..."
    )
    try:
        return parser.parse_args(arguments)
    except DraccusException as error:
        sys.exit(f"error: {refusal(error)}")


def refusal(error: BaseException) -> BaseException:
    """Why an option is refused: where a configuration itself refuses a value, draccus says no more than that it couldn't be made."""
    while "Couldn't instantiate class" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def mistakes_in_one_line(*others: type[Exception]) -> Iterator[None]:
    """End the command with the message of an error that a user can mend, instead of a traceback.

    Args:
        *others: Errors that are such mistakes in this command, beside wrong values, files and folders.

    Raises:
        SystemExit: A value, a file or a folder is not what was expected.
    """
    mistakes: tuple[type[Exception], ...] = (ValueError, OSError, *others)
    try:
        yield
    except mistakes as error:
        sys.exit(f"error: {refusal(error)}")


def option_help(config_class: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """What each option means: the "Attributes" in the docstrings of a dataclass and of those in its fields.

    Args:
        config_class: A dataclass.
        prefix: Of the options' names, such as "dataset.".

    Yields:
        Name and meaning, with the default.
    """
    meanings = attribute_meanings(config_class)
    types = get_type_hints(config_class)
    for field in fields(config_class):
        choices = (types[field.name], *get_args(types[field.name]))  # of an optional part, too
        if parts := [choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)]:
            yield from option_help(parts[0], f"{prefix}{field.name}.")
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        told = "required" if default is MISSING else f"default: {default}"
        yield prefix + field.name, f"{meanings.get(field.name, '')} ({told})".lstrip()


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


def _formatter(config_class: type) -> type[SimpleHelpFormatter]:
    """A formatter like draccus's, with the meanings from the docstrings.

    draccus looks for comments at the fields instead, and prints the docstrings as they are, or parts of the source.
    """
    meanings = dict(option_help(config_class))

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
