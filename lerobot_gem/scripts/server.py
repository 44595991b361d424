"""`lerobot-gem-server`: LeRobot's async policy server for `gem_vla` policies."""

import sys

from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options


@mistakes_in_one_line()
def main() -> None:
    try:
        from lerobot_gem.robots.policy_server import ServerConfig, serve
    except ImportError as error:
        sys.exit(
            f"error: {error}\nThe server's packages are an extra: pip install '.[server]' in a clone of the plugin's repository."
        )
    serve(parse_options(ServerConfig))


if __name__ == "__main__":
    main()
