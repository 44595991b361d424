"""`lerobot-gem-export`: write a LeRobotDataset with questions as a folder in the GEM-250K format."""

from lerobot_gem.data.gem_jsonl.exporting import ANNOTATIONS, ExportGemConfig, export_gem
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options


@mistakes_in_one_line()
def main() -> None:
    config = parse_options(ExportGemConfig)
    report = export_gem(config)
    print(
        f"{config.output_dir / ANNOTATIONS}: {report.records} records of {report.frames} frames, "
        f"{report.silent_frames} frames without a question; {report.images} images, {report.depth_maps} depth maps"
    )


if __name__ == "__main__":
    main()
