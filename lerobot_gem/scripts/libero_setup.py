"""`lerobot-gem-libero-setup`: make LIBERO ready once, without questions."""

import argparse
import sys

from lerobot_gem.simulation.libero_setup import setup_libero


def main() -> None:
    argparse.ArgumentParser(
        description="Write LIBERO's configuration ($LIBERO_CONFIG_PATH or ~/.libero) if there is none, link its assets "
        "from the installed packages, and report what is missing. Never changes an existing configuration."
    ).parse_args()
    report = setup_libero()
    for mark, lines in (("found", report.found), ("done", report.done), ("MISSING", report.problems)):
        for line in lines:
            print(f"{mark:>8}  {line}")
    if not report.ready:
        sys.exit(1)
    print("LIBERO is ready.")


if __name__ == "__main__":
    main()
