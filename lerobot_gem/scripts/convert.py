"""`lerobot-gem-convert`: write a checkpoint as plain Qwen3-VL, or in one of the release's formats."""

from lerobot_gem.checkpoints.convert import ConvertConfig, convert
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options
from lerobot_gem.storage.output_folder import check_empty, explained_full_disk, removed_on_error


@mistakes_in_one_line()
def main() -> None:
    config = parse_options(ConvertConfig)
    check_empty(config.output_dir)
    with (
        explained_full_disk(config.output_dir, "Free some and convert again."),
        removed_on_error(config.output_dir),
    ):
        written = convert(config)
    size = sum(stored.num_bytes for stored in written.weights.values())
    print(f"{config.output_dir}: {config.format}, {len(written.weights)} weights, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
