"""Models answer the questions of real datasets: stubs, a tiny `gem` policy, and the same weights as plain Qwen3-VL."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.evaluation.vqa import AskedPolicy, VqaEvaluationConfig, ask, evaluate_vqa, table
from lerobot_gem.evaluation.vqa_benchmarks import BenchmarkOptions
from lerobot_gem.evaluation.vqa_questions import read_rows
from lerobot_gem.evaluation.vqa_scores import score_answers
from lerobot_gem.inference.answering import Answerer
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.storage.opening import DatasetOptions
from tests.evaluation.benchmark_files import vsi_bench


def config_of(model: Path, data: Path, output: Path, **values) -> VqaEvaluationConfig:
    dataset = DatasetOptions("local/noise", data, values.pop("episodes", None))
    asked = AskedPolicy(str(model), "cpu", values.pop("dtype", None))
    return VqaEvaluationConfig(asked, output, dataset, **{"max_new_tokens": 6, **values})


def predictions(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


def test_a_perfect_answerer_scores_one_and_sees_the_right_images(questions, tmp_path):
    dataset = LeRobotDataset("local/noise", root=questions)
    rows = read_rows(dataset).rows
    left = list(rows)

    def answer(batch):
        asked = [left.pop(0) for _ in batch]
        for (images, text), expected in zip(batch, asked, strict=True):
            assert text == expected.question
            [image] = images
            assert image.equal(dataset[expected.index][expected.cameras[0]])
        return [expected.answer for expected in asked]

    answers = ask(dataset, rows, answer, 4, tmp_path / "out" / "predictions.jsonl")
    scores = {kind.kind: kind for kind in score_answers(rows, answers)}
    assert scores.keys() == {"box", "count", "object_distance", "point", "relation"}
    for kind in scores.values():
        assert (kind.n, kind.unparsed) == (3, 0)
        assert all(metric.score == 1 for metric in kind.metrics), kind
    assert [metric.n for metric in scores["point"].metrics] == [3, 3]
    written = predictions(tmp_path / "out")
    assert [line["prediction"] for line in written] == [line["answer"] for line in written] == answers
    assert written[0]["scores"] == {"in_object": 1.0, "within_5%": 1.0}
    assert written[0]["region"] == [100, 100, 300, 300]


def test_answers_are_the_policys_own_whatever_the_batch_size(questions, policy, plain, tmp_path):
    dataset = LeRobotDataset("local/noise", root=questions)
    rows = read_rows(dataset).rows
    shown = [([dataset[asked.index][asked.cameras[0]]], asked.question) for asked in rows]
    gem = GemPolicy.from_pretrained(policy)
    answerer = Answerer(
        gem.backbone, gem.config.images, load_tokenizer(open_checkpoint(policy)), max_new_tokens=6
    )
    expected = answerer.answer(shown)
    assert len(set(expected)) > 3  # or mixed up answers would go unseen
    for model, batch_size in ((policy, 1), (policy, 4), (policy, 99), (plain, 4)):
        output = tmp_path / f"{model.name}-{batch_size}"
        report = evaluate_vqa(config_of(model, questions, output, batch_size=batch_size))
        assert report.rows == len(rows)
        assert [line["prediction"] for line in predictions(output)] == expected, (model, batch_size)


def test_a_public_benchmark_is_asked_and_scored(policy, tmp_path):
    benchmark = BenchmarkOptions("vsi_bench", vsi_bench(tmp_path / "vsi"), num_frames=3)
    asked = AskedPolicy(str(policy), "cpu")
    config = VqaEvaluationConfig(asked, tmp_path / "out", benchmark=benchmark, batch_size=2, max_new_tokens=4)
    report = evaluate_vqa(config)
    assert (report.rows, [kind.n for kind in report.scores]) == (5, [1] * 5)
    assert 0 <= report.averages["average"].score <= 1
    assert re.search(
        r"^average: 0\.\d{3} \(always one answer: 1\.000, guessing: 0\.\d{3}\)$", table(report), re.M
    )
    lines = predictions(tmp_path / "out")
    assert {line["images"] for line in lines} == {"scannet/scene0000_00", "arkitscenes/41069025"}
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["config"]["benchmark"]["num_frames"] == 3
    assert scores["averages"]["average"].keys() == {"score", "constant", "random"}


def test_either_a_dataset_or_a_benchmark_is_asked(tmp_path):
    asked = AskedPolicy(str(tmp_path), "cpu")
    dataset, benchmark = DatasetOptions("local/noise"), BenchmarkOptions("cv_bench", tmp_path)
    for given in ({}, {"dataset": dataset, "benchmark": benchmark}):
        with pytest.raises(ValueError, match=r"Expected either the questions of a dataset .* or of a public"):
            VqaEvaluationConfig(asked, tmp_path / "out", **given)


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "lerobot_gem.scripts.eval_vqa", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_the_command_prints_and_writes_scores(policy, questions, tmp_path):
    output = tmp_path / "out"
    result = run(
        f"--policy.path={policy}",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={questions}",
        "--dataset.episodes=[0]",
        f"--output_dir={output}",
        "--max_new_tokens=6",
        "--max_rows=7",
        "--kinds=[count, object_distance, point, relation]",
        "--policy.dtype=bfloat16",
        "--policy.device=cpu",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "7 questions" in result.stdout
    assert re.search(r"^count +2 +\d  exact +2  ?0\.\d{3} .* 0\.500$", result.stdout, re.MULTILINE), (
        result.stdout
    )
    scores = json.loads((output / "scores.json").read_text())
    assert scores["config"]["max_rows"] == 7
    assert scores["config"]["policy"]["dtype"] == "bfloat16"
    assert scores["device"] == "cpu"
    assert scores["versions"].keys() == {"lerobot", "lerobot_policy_gem", "torch", "transformers"}
    assert {kind["kind"]: kind["n"] for kind in scores["scores"]} == {
        "count": 2,
        "object_distance": 2,
        "point": 2,
        "relation": 1,
    }
    assert {line["episode"] for line in predictions(output)} == {0}


def test_a_dataset_without_questions_fails_before_the_model_is_loaded(dataset_root, tmp_path):
    with pytest.raises(ValueError, match="'local/noise' has no questions"):
        evaluate_vqa(config_of(tmp_path / "nowhere", dataset_root, tmp_path / "out"))


def test_results_are_never_overwritten(policy, questions, tmp_path):
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(FileExistsError, match="output_dir=.* exists and is not an empty folder"):
        evaluate_vqa(config_of(policy, questions, tmp_path))


def test_unknown_episodes_are_named(policy, questions, tmp_path):
    with pytest.raises(ValueError, match=r"dataset.episodes=\[0, 3\] of .*: expected some of 0 to 2"):
        evaluate_vqa(config_of(policy, questions, tmp_path, episodes=[0, 3]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"max_rows": 0}, "max_rows=0: expected at least 1"),
        ({"dtype": "float16"}, "policy.dtype='float16' is unknown: expected one of 'float32', 'bfloat16'"),
    ],
)
def test_bad_options_are_named(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path, tmp_path, tmp_path, **values)
