"""`lerobot-gem-so101-demos`: collect demonstrations of a simulated SO-101 arm with depth as a LeRobotDataset."""

from lerobot_gem.data.so101_demos.collecting import SO101DemosConfig, collect
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options


@mistakes_in_one_line(ModuleNotFoundError)
def main() -> None:
    config = parse_options(SO101DemosConfig)
    attempts = collect(config)
    if attempts is None:  # Slurm goes on with it
        return
    print(
        f"{config.output.root}: {config.episodes} demonstrations in {attempts} attempts of the scripted policy"
    )


if __name__ == "__main__":
    main()
