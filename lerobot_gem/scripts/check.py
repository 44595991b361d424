"""`lerobot-gem-check DATASET`: tell what training will see of a dataset, and which errors it would raise."""

import sys
from pathlib import Path

from lerobot.configs import parser

from lerobot_gem.data.check.inspector import CheckConfig, inspect
from lerobot_gem.data.check.page import write_page
from lerobot_gem.data.check.report import as_text
from lerobot_gem.scripts.options import mistakes_in_one_line


@parser.wrap()
def check(config: CheckConfig) -> int:
    """Print the report, and write the page if it is asked for; returns the exit code."""
    if config.policy is not None or parser.get_path_arg("policy"):
        config.output_dir = None  # that it exists does not matter here
        config.validate()
    found = inspect(config)
    if found is None:  # Slurm goes on with it
        return 0
    print(as_text(found))
    if config.html is not None:
        write_page(found, config.html)
        print(f"Pictures: {config.html}")
    return 1 if found.errors else 0


def name_dataset(arguments: list[str]) -> list[str]:
    """Turn a first argument without dashes, a folder or a repo id, into LeRobot's options of a dataset."""
    if not arguments or arguments[0].startswith("-"):
        return arguments
    name, *others = arguments
    if Path(name).is_dir():
        return [f"--dataset.repo_id=local/{Path(name).resolve().name}", f"--dataset.root={name}", *others]
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"No folder {name}: expected the root folder of a dataset, or a repo id.")
    return [f"--dataset.repo_id={name}", *others]


@mistakes_in_one_line(ModuleNotFoundError, NotImplementedError)
def main() -> None:
    sys.argv[1:] = name_dataset(sys.argv[1:])
    sys.exit(check())


if __name__ == "__main__":
    main()
