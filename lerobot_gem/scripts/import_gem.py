"""`lerobot-gem-import`: turn a folder in the GEM-250K format, or LLaVA's JSON, into a LeRobotDataset."""

from lerobot_gem.data.gem_jsonl.importing import REPORT, SKIPPED, ImportGemConfig, import_gem
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options


@mistakes_in_one_line(ModuleNotFoundError)
def main() -> None:
    config = parse_options(ImportGemConfig)
    report = import_gem(config)
    if report is None:  # Slurm goes on with it
        return
    print(f"\n{config.output.root}: {REPORT}, and {SKIPPED} with each skipped record")
    for line in report.lines():
        print(line)


if __name__ == "__main__":
    main()
