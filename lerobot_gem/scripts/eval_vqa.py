"""`lerobot-gem-eval-vqa`: score a `gem` policy or Qwen3-VL on the questions of a dataset."""

from lerobot.utils.utils import init_logging

from lerobot_gem.evaluation.vqa import VqaEvaluationConfig, evaluate_vqa, table
from lerobot_gem.scripts.options import mistakes_in_one_line, parse_options


@mistakes_in_one_line()
def main() -> None:
    init_logging()
    config = parse_options(VqaEvaluationConfig)
    report = evaluate_vqa(config)
    print(f"\n{config.output_dir}: {report.rows} questions, {report.rows / report.seconds:.1f} a second")
    print(table(report))


if __name__ == "__main__":
    main()
