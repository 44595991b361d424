"""`lerobot-gem-convert`: write a checkpoint as plain Qwen3-VL, or in the format of the released GEM-2B."""

from lerobot_gem.checkpoints.convert import ConvertConfig, convert
from lerobot_gem.scripts.options import parse_options


def main() -> None:
    config = parse_options(ConvertConfig)
    written = convert(config)
    size = sum(stored.num_bytes for stored in written.weights.values())
    print(f"{config.output}: {config.format}, {len(written.weights)} weights, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
