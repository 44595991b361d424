"""`lerobot-gem-libero-demos`: collect LIBERO demonstrations with depth and questions as a LeRobotDataset."""

import json
import sys

import draccus

from lerobot_gem.data.libero_demos import collect
from lerobot_gem.data.libero_demos_config import LiberoDemosConfig


def main() -> None:
    # `--qa` alone: draccus knows no flags, and the configuration of a part as `--qa={}` only before its fields.
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--qa", "--qa=true")]
    if len(arguments) < len(sys.argv) - 1:
        arguments.insert(0, "--qa={}")
    config = draccus.parse(LiberoDemosConfig, args=arguments)
    reports = collect(config)
    if reports:
        print(f"\n{config.root}: expert successes / attempts")
    for report in reports:
        print(f"  {report.task_id:2d}  {report.successes:4d} / {report.attempts:<4d}  {report.instruction}")
    if config.qa is not None:
        print(f"\n{config.root}: questions, share of the most common answer")
        for kind, found in json.loads((config.root / "collection.json").read_text())["questions"].items():
            print(f"  {kind:16}  {found['questions']:6d}  {found['most_common_answer']:6.1%}")


if __name__ == "__main__":
    main()
