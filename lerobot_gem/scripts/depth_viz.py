"""`lerobot-gem-depth-viz`: strips of RGB, true and generated depth, and how good the generated depth is."""

from lerobot.configs import parser
from lerobot.utils.utils import init_logging

from lerobot_gem.evaluation.depth_report import (
    DepthReportConfig,
    read_policy_config,
    table,
    write_depth_report,
)
from lerobot_gem.scripts.options import mistakes_in_one_line


@parser.wrap()
def report(config: DepthReportConfig) -> None:
    if path := parser.get_path_arg("policy"):
        overrides = [*parser.get_yaml_overrides("policy"), *(parser.get_cli_overrides("policy") or [])]
        config.policy = read_policy_config(path, overrides)
    reports = write_depth_report(config)
    print(f"\n{config.output_dir}: strips in frames/, depth.mp4, metrics.json\n\n{table(reports)}")


@mistakes_in_one_line()
def main() -> None:
    init_logging()
    report()


if __name__ == "__main__":
    main()
