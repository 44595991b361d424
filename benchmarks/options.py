"""Types of the benchmarks' options."""

import argparse


def at_least_one(text: str) -> int:
    """A number of things, from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: expected at least 1")
    return number
