"""`lerobot-gem-config`: where a file for `--config_path` lies, so that an installed package needs no clone."""

import argparse
from pathlib import Path

from lerobot_gem.scripts.options import mistakes_in_one_line

CONFIGS = Path(__file__).parents[1] / "configs"


def names() -> list[str]:
    """Each file of `configs/`, such as policy/gem_vla_2b."""
    return sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*.yaml"))


def find_config(name: str) -> Path:
    """The file of a name.

    Args:
        name: As `names` says, or its last part where no other file has it.

    Raises:
        ValueError: No file has the name, or several do.
    """
    if found := [known for known in names() if name in (known, known.split("/")[1])]:
        if len(found) > 1:
            raise ValueError(f"{name!r} is the name of several files. Write one of: {', '.join(found)}.")
        return CONFIGS / f"{found[0]}.yaml"
    raise ValueError(f"There is no {name!r}. Write one of: {', '.join(names())}.")


@mistakes_in_one_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print the path of a file for --config_path, or the names of all files."
    )
    parser.add_argument("name", nargs="?", help="such as gem_vla_2b; all names are listed without one")
    name = parser.parse_args().name
    print(find_config(name) if name else "\n".join(names()))


if __name__ == "__main__":
    main()
