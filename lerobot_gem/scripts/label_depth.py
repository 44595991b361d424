"""`lerobot-gem-label-depth`: copy a LeRobotDataset and give its cameras the depth that a model predicts."""

from lerobot_gem.data.depth_labels.labelling import LabelDepthConfig, label_depth
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options


@mistakes_in_one_line(ModuleNotFoundError)
def main() -> None:
    config = parse_options(LabelDepthConfig)
    reports = label_depth(config)
    if reports is None:  # the main process has them, or Slurm goes on
        return
    for report in reports:
        print(
            f"{report.key}: {report.frames} frames, {report.depth_type}, {report.nearest:.3f} to {report.farthest:.3f} m "
            f"(median {report.median:.3f}), {report.usable:.1%} of the pixels usable"
        )
    print(f"Read it with --dataset.repo_id={config.output.repo_id} --dataset.root={config.output.root}")


if __name__ == "__main__":
    main()
