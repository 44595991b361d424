"""`lerobot-gem-libero-demos`: collect LIBERO demonstrations with depth as a LeRobotDataset."""

import draccus

from lerobot_gem.data.libero_demos import LiberoDemosConfig, collect


def main() -> None:
    config = draccus.parse(LiberoDemosConfig)
    reports = collect(config)
    print(f"\n{config.root}: expert successes / attempts")
    for report in reports:
        print(f"  {report.task_id:2d}  {report.successes:4d} / {report.attempts:<4d}  {report.instruction}")


if __name__ == "__main__":
    main()
