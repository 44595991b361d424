"""`lerobot-gem-preflight`: would `lerobot-rollout` with these options do what the policy learned? Moves nothing."""

import sys

from lerobot.configs import parser

# Registers LeRobot's robots, cameras and teleoperators for the command line.
from lerobot.scripts import lerobot_rollout  # noqa: F401
from lerobot.utils.import_utils import register_third_party_plugins

from lerobot_gem.robots.page import as_text, write_page
from lerobot_gem.robots.preflight import PreflightConfig, preflight
from lerobot_gem.scripts.options import mistakes_in_one_line


@parser.wrap()
def run(config: PreflightConfig) -> int:
    """Print what was found, and write the page if it is asked for; returns the exit code."""
    found = preflight(config)
    print(as_text(found))
    if config.html is not None:
        write_page(found, config.html)
        print(f"Pictures: {config.html}")
    return 1 if found.count("error") else 0


@mistakes_in_one_line(ImportError)
def main() -> None:
    register_third_party_plugins()
    sys.exit(run())


if __name__ == "__main__":
    main()
