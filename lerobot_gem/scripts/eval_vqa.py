"""`lerobot-gem-eval-vqa`: score a `gem` policy or Qwen3-VL on the questions of a dataset."""

from lerobot.utils.utils import init_logging

from lerobot_gem.evaluation.vqa import VqaEvaluationConfig, evaluate_vqa
from lerobot_gem.scripts.options import parse_options


def main() -> None:
    init_logging()
    config = parse_options(VqaEvaluationConfig)
    report = evaluate_vqa(config)
    print(f"\n{config.output_dir}: {report.rows} questions, {report.rows / report.seconds:.1f} a second")
    print(
        f"{'kind':16} {'n':>6} {'unparsed':>8}  {'metric':10} {'n':>6} {'score':>6}  {'95 %':13} {'baseline':>8}"
    )
    for kind in report.scores:
        for metric in kind.metrics:
            interval = f"{metric.low:.3f}-{metric.high:.3f}"
            print(
                f"{kind.kind:16} {kind.n:6d} {kind.unparsed:8d}  {metric.metric:10} {metric.n:6d} {metric.score:6.3f}  "
                f"{interval:13} {metric.baseline:8.3f}"
            )
        if kind.without_region:
            print(
                f"{kind.kind:16} {kind.without_region:6d} of them not in in_object: no question asks for the object's box"
            )
    for reason, count in report.skipped.items():
        print(f"skipped: {count} ({reason})")


if __name__ == "__main__":
    main()
