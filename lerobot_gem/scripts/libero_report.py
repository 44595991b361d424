"""`lerobot-gem-libero-report`: success with intervals, and paired tests, from one or more evaluations."""

import json
from dataclasses import dataclass
from pathlib import Path

from lerobot_gem.results.report import make_report
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options
from lerobot_gem.storage.output_folder import check_empty


@dataclass
class LiberoReportConfig:
    """What to count, and where to put it.

    Attributes:
        evaluations: Names and folders of evaluations (lerobot-eval's --output_dir, or the eval_info.json in it), e.g.
            '{depth: outputs/eval_depth, scratch: outputs/eval_scratch}'.
        paired: The evaluations are of the same environment, options, tasks, seed and number of episodes: compare every two
            on the pairs. The files can't tell; episodes in different numbers are an error.
        output_dir: Folder for report.md and report.json; only printed when empty.
    """

    evaluations: dict[str, Path]
    paired: bool = True
    output_dir: Path | None = None

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise ValueError(
                "evaluations is empty: name at least one, e.g. --evaluations='{depth: outputs/eval}'."
            )


@mistakes_in_one_line()
def main() -> None:
    config = parse_options(LiberoReportConfig)
    if config.output_dir is not None:
        check_empty(config.output_dir)
    report = make_report(config.evaluations, config.paired)
    print(report.markdown())
    if config.output_dir is not None:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        (config.output_dir / "report.md").write_text(report.markdown())
        (config.output_dir / "report.json").write_text(json.dumps(report.data(), indent=1))


if __name__ == "__main__":
    main()
