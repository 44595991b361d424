"""`lerobot-gem-export`: write a LeRobotDataset with questions as a folder in the GEM-250K format."""

import draccus

from lerobot_gem.data.gem_jsonl.exporting import ANNOTATIONS, ExportGemConfig, export_gem


def main() -> None:
    config = draccus.parse(ExportGemConfig)
    report = export_gem(config)
    print(
        f"{config.output / ANNOTATIONS}: {report.records} records of {report.frames} frames, {report.silent_frames} of which have "
        f"no question; {report.images} images, {report.depth_maps} depth maps"
    )


if __name__ == "__main__":
    main()
