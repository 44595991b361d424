"""Scores of a vision-language model on the questions of a dataset: asked in batches, answered greedily, scored by kind."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import draccus
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from lerobot_gem.evaluation.vqa_benchmark_scores import Average, score_benchmark, score_benchmark_answer
from lerobot_gem.evaluation.vqa_benchmarks import BenchmarkOptions, BenchmarkRow, read_benchmark
from lerobot_gem.evaluation.vqa_models import load_answerer
from lerobot_gem.evaluation.vqa_questions import read_rows, select_rows
from lerobot_gem.evaluation.vqa_scores import KindScores, VqaRow, score_answer, score_answers
from lerobot_gem.inference.answering import Answerer, Question
from lerobot_gem.policies.base_configuration import DTYPES
from lerobot_gem.storage.opening import DatasetOptions, open_dataset
from lerobot_gem.storage.output_folder import check_empty
from lerobot_gem.validation import require, require_at_least

logger = logging.getLogger(__name__)


@dataclass
class AskedPolicy:
    """The model that is asked: `--policy.*`.

    Attributes:
        path: Hub id or folder of a `gem` policy (its `pretrained_model`), of a `gem_vla` policy that was trained with action tokens,
            questions or depth (with depth alone not `8b`), of GEM-2B's format, or of Qwen3-VL.
        device: "cuda", "cpu", ...; None takes the fastest there is.
        dtype: "float32" or "bfloat16"; None is a policy's own `dtype`, or the type of the stored weights.
    """

    path: str
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            require(self.dtype, DTYPES, "policy.dtype")


@dataclass
class VqaEvaluationConfig:
    """Which model to ask what.

    Attributes:
        policy: The model.
        output_dir: Folder to write `predictions.jsonl` and `scores.json` to; absent or empty.
        dataset: A dataset with questions.
        benchmark: A public benchmark in its place.
        kinds: Kinds of questions to ask; None for all.
        max_rows: Largest number of questions, spread evenly over the kinds; None for all.
        batch_size: Questions that are answered together.
        max_new_tokens: Where a longer answer is cut.
        min_pixels: Smallest image area that the model is shown; None is a policy's own, or what the image processor that
            comes with the model says. To compare models, show them the same.
        max_pixels: The same for the largest area.
        seed: Of the choice of `max_rows` and of the bootstrap.
    """

    policy: AskedPolicy
    output_dir: Path
    dataset: DatasetOptions | None = None
    benchmark: BenchmarkOptions | None = None
    kinds: list[str] | None = None
    max_rows: int | None = None
    batch_size: int = 16
    max_new_tokens: int = 128
    min_pixels: int | None = None
    max_pixels: int | None = None
    seed: int = 1000

    def __post_init__(self) -> None:
        if (self.dataset is None) == (self.benchmark is None):
            raise ValueError(
                "Expected either the questions of a dataset (--dataset.repo_id=..., --dataset.root=...) or of a public benchmark "
                "(--benchmark.name=..., --benchmark.root=...)."
            )
        require_at_least(self, max_rows=1, batch_size=1, max_new_tokens=1, min_pixels=1, max_pixels=1)


@dataclass(frozen=True)
class VqaReport:
    """What came out.

    Attributes:
        scores: By kind.
        rows: Questions that were answered.
        skipped: Reason -> questions of the dataset that could not be asked.
        seconds: Time that reading frames and answering took.
        averages: Of a public benchmark, by their names there.
    """

    scores: list[KindScores]
    rows: int
    skipped: dict[str, int]
    seconds: float
    averages: dict[str, Average] = field(default_factory=dict)


def evaluate_vqa(config: VqaEvaluationConfig) -> VqaReport:
    """Load the model, ask, score and write.

    Raises:
        FileExistsError: `output_dir` is not empty.
        FileNotFoundError: There is no such model, or a file of the benchmark is missing.
        ValueError: The dataset has no questions, or none of a kind that was asked for; or the model can't answer.
    """
    check_empty(config.output_dir)
    report, device = _of_benchmark(config) if config.benchmark else _of_dataset(config)
    values = {
        "config": draccus.encode(config),
        "device": device,
        "versions": {
            name: version(name) for name in ("lerobot", "lerobot_policy_gem", "torch", "transformers")
        },
        **asdict(report),
    }
    (config.output_dir / "scores.json").write_text(json.dumps(values, indent=2) + "\n")
    return report


def _of_dataset(config: VqaEvaluationConfig) -> tuple[VqaReport, str]:
    """The report, and the device that answered."""
    assert config.dataset is not None
    dataset = open_dataset(config.dataset)
    found = read_rows(dataset)
    rows = select_rows(found.rows, kinds=config.kinds, max_rows=config.max_rows, seed=config.seed)
    logger.info(f"{len(rows)} of {len(found.rows)} questions, {sum(found.skipped.values())} skipped")
    answerer = _load(config)
    start = time.perf_counter()
    answers = ask(dataset, rows, answerer.answer, config.batch_size, config.output_dir / "predictions.jsonl")
    seconds = time.perf_counter() - start
    scores = score_answers(rows, answers, seed=config.seed)
    return VqaReport(scores, len(rows), dict(found.skipped), seconds), _device(answerer)


def _of_benchmark(config: VqaEvaluationConfig) -> tuple[VqaReport, str]:
    assert config.benchmark is not None
    name = config.benchmark.name
    found = read_benchmark(config.benchmark)
    rows = select_rows(found, kinds=config.kinds, max_rows=config.max_rows, seed=config.seed)
    logger.info(f"{len(rows)} of {len(found)} questions of {name}")
    score_benchmark(name, rows, [""] * len(rows))  # a wrong answer key shows before hours of answering
    answerer = _load(config)
    start = time.perf_counter()
    answers = ask_benchmark(rows, answerer.answer, config.batch_size, config.output_dir / "predictions.jsonl")
    seconds = time.perf_counter() - start
    scores, averages = score_benchmark(name, rows, answers, seed=config.seed)
    return VqaReport(scores, len(rows), {}, seconds, averages), _device(answerer)


def _load(config: VqaEvaluationConfig) -> Answerer:
    return load_answerer(
        config.policy.path,
        device=config.policy.device,
        dtype=config.policy.dtype,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        max_new_tokens=config.max_new_tokens,
    )


def _device(answerer: Answerer) -> str:
    return str(next(answerer.backbone.parameters()).device)


def table(report: VqaReport) -> str:
    """The scores as lines of text."""
    lines = [
        f"{'kind':16} {'n':>6} {'unparsed':>8}  {'metric':10} {'n':>6} {'score':>6}  {'95 %':13} {'baseline':>8}"
    ]
    for kind in report.scores:
        for metric in kind.metrics:
            interval = f"{metric.low:.3f}-{metric.high:.3f}"
            lines.append(
                f"{kind.kind:16} {kind.n:6d} {kind.unparsed:8d}  {metric.metric:10} {metric.n:6d} {metric.score:6.3f}  "
                f"{interval:13} {metric.baseline:8.3f}"
            )
        if kind.without_region:
            lines.append(
                f"{kind.kind:16} {kind.without_region:6d} of them not in in_object: no question asks for the object's box"
            )
    lines += [
        f"{name}: {average.score:.3f} (always one answer: {average.constant:.3f}, guessing: {average.random:.3f})"
        for name, average in report.averages.items()
    ]
    lines += [f"skipped: {count} ({reason})" for reason, count in report.skipped.items()]
    return "\n".join(lines)


def ask(
    dataset: LeRobotDataset,
    rows: Sequence[VqaRow],
    answer: Callable[[Sequence[Question]], list[str]],
    batch_size: int,
    predictions: Path,
) -> list[str]:
    """Ask all questions in batches and write down each with its answer and scores as soon as there are any.

    Args:
        dataset: Holds the frames.
        rows: Questions; those about one frame should follow each other, since a frame is read once for all of them.
        answer: Answers a batch.
        batch_size: Questions in it.
        predictions: File to write, one line of JSON for each question.
    """
    return _ask(rows, _questions(dataset, rows), answer, batch_size, predictions, _prediction)


def ask_benchmark(
    rows: Sequence[BenchmarkRow],
    answer: Callable[[Sequence[Question]], list[str]],
    batch_size: int,
    predictions: Path,
) -> list[str]:
    """The same for questions of a public benchmark, whose images are read once for those that follow each other."""
    return _ask(rows, _benchmark_questions(rows), answer, batch_size, predictions, _benchmark_prediction)


def _ask[Row](
    rows: Sequence[Row],
    questions: Iterator[Question],
    answer: Callable[[Sequence[Question]], list[str]],
    batch_size: int,
    predictions: Path,
    describe: Callable[[Row, str], dict[str, Any]],
) -> list[str]:
    predictions.parent.mkdir(parents=True, exist_ok=True)
    answers: list[str] = []
    with predictions.open("w") as file:
        for start in tqdm(range(0, len(rows), batch_size), desc="Answering", unit="batch"):
            batch = rows[start : start + batch_size]
            written = answer([next(questions) for _ in batch])
            for row, text in zip(batch, written, strict=True):
                file.write(json.dumps(describe(row, text)) + "\n")
            file.flush()
            answers += written
    return answers


def _questions(dataset: LeRobotDataset, rows: Sequence[VqaRow]) -> Iterator[Question]:
    """Images and text of each question."""
    positions = {
        index: position for position, index in enumerate(dataset.hf_dataset.data.column("index").to_pylist())
    }
    index, frame = -1, {}
    for row in rows:
        if row.index != index:
            index, frame = row.index, dataset[positions[row.index]]
        yield [frame[camera] for camera in row.cameras], row.question


def _benchmark_questions(rows: Sequence[BenchmarkRow]) -> Iterator[Question]:
    loaded, images = None, []
    for row in rows:
        if row.images != loaded:
            loaded, images = row.images, row.load()
        yield images, row.question


def _benchmark_prediction(row: BenchmarkRow, answer: str) -> dict[str, Any]:
    return {
        "id": row.name,
        "kind": row.kind,
        "group": row.group,
        "images": row.images,
        "question": row.question,
        "answer": row.answer,
        "prediction": answer,
        "score": score_benchmark_answer(row, answer),
    }


def _prediction(row: VqaRow, answer: str) -> dict[str, Any]:
    scores = score_answer(row, answer)
    return {
        "index": row.index,
        "episode": row.episode,
        "cameras": row.cameras,
        "kind": row.kind,
        "question": row.question,
        "answer": row.answer,
        "prediction": answer,
        "region": row.region,
        "unparsed": scores is None,
        "scores": scores,
    }
