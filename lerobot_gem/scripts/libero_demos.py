"""`lerobot-gem-libero-demos`: collect LIBERO demonstrations with depth and questions as a LeRobotDataset."""

import json
import sys
from collections.abc import Sequence

from lerobot_gem.data.libero_demos.collecting import collect
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options
from lerobot_gem.simulation.libero_setup import LiberoNotReadyError


def parse(arguments: Sequence[str]) -> LiberoDemosConfig:
    """The configuration that a command line asks for. `--qa` may stand alone: every kind of question.

    draccus knows no flags, and takes the configuration of a part as `--qa={}` only before its fields.
    """
    flags = {"--qa": ["--qa={}"], "--qa=true": ["--qa={}"], "--qa=false": []}
    fields = [argument for argument in arguments if argument not in flags]
    flag = next((flags[argument] for argument in arguments if argument in flags), [])
    return parse_options(LiberoDemosConfig, flag + fields)


@mistakes_in_one_line(ModuleNotFoundError, LiberoNotReadyError)
def main() -> None:
    config = parse(sys.argv[1:])
    reports = collect(config)
    if reports is None:  # Slurm goes on with it
        return
    if reports:
        tried = "attempts of the scripted policy" if config.source is None else "recorded demonstrations"
        print(f"\n{config.output.root}: successes / {tried}")
    for report in reports:
        print(f"  {report.task_id:2d}  {report.successes:4d} / {report.attempts:<4d}  {report.instruction}")
    if config.qa is not None:
        print(f"\n{config.output.root}: questions, share of the most common answer")
        for kind, found in json.loads((config.output.root / "collection.json").read_text())[
            "questions"
        ].items():
            print(f"  {kind:16}  {found['questions']:6d}  {found['most_common_answer']:6.1%}")


if __name__ == "__main__":
    main()
