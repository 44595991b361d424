"""`lerobot-gem-rename`: copy a dataset with other names of its features."""

from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options
from lerobot_gem.storage.renaming import RenameConfig, rename_features


@mistakes_in_one_line()
def main() -> None:
    config = parse_options(RenameConfig)
    rename_features(config)
    print(
        f"{config.output.root}: renamed {', '.join(f'{old} -> {new}' for old, new in config.names.items())}"
    )


if __name__ == "__main__":
    main()
