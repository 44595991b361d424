"""`lerobot-gem-depth-viz`: strips of RGB, true and generated depth, and how well the generated depth is."""

from lerobot.configs import parser
from lerobot.utils.utils import init_logging

from lerobot_gem.evaluation.depth_report import (
    DepthVisualisationConfig,
    read_policy_config,
    table,
    visualise_depth,
)


@parser.wrap()
def visualise(config: DepthVisualisationConfig) -> None:
    if path := parser.get_path_arg("policy"):
        overrides = [*parser.get_yaml_overrides("policy"), *(parser.get_cli_overrides("policy") or [])]
        config.policy = read_policy_config(path, overrides)
    reports = visualise_depth(config)
    print(f"\n{config.output_dir}: strips in frames/, depth.mp4, metrics.json\n\n{table(reports)}")


def main() -> None:
    init_logging()
    visualise()


if __name__ == "__main__":
    main()
