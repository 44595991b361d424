"""Models answer the questions of real datasets: stubs, a tiny `gem` policy, and the same weights as plain Qwen3-VL."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.evaluation.vqa import (
    DatasetOptions,
    VqaEvaluationConfig,
    ask,
    evaluate_vqa,
    load_answerer,
)
from lerobot_gem.evaluation.vqa_questions import read_rows
from lerobot_gem.evaluation.vqa_scores import score_answers
from lerobot_gem.inference.answering import Answerer
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.storage.language_columns import row
from tests.checkpoints.conftest import edit_config
from tests.conftest import CAMERAS, FRAMES, add_language_rows, build_policy, write_dataset
from tests.policies.gem.test_modeling_gem import save, warm

FRONT, WRIST = CAMERAS


@pytest.fixture(autouse=True)
def _one_thread():
    """The models are too small to share among threads, which would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def vqa(question: str, answer: str, camera: str) -> list[dict]:
    return [row("user", question, "vqa", camera), row("assistant", answer, "vqa", camera)]


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    """A dataset with questions of many kinds in some frames of two episodes, about both cameras."""
    events = {
        frame: [
            *vqa("Point to the mug.", '{"point_2d": [200, 200]}', FRONT),
            *vqa("Draw a box around the mug.", '{"bbox_2d": [100, 100, 300, 300]}', FRONT),
            *vqa("How many mugs are there?", str(frame % 3), WRIST),
            *vqa("How far is the mug?", f"0.{frame + 10} m", FRONT),
            *vqa("Is the mug left of the plate?", "yes", WRIST),
        ]
        for frame in (0, 4, FRAMES + 2)
    }
    return add_language_rows(write_dataset(tmp_path_factory.mktemp("data") / "vqa"), [], events)


@pytest.fixture(scope="module")
def policy(questions: Path, tmp_path_factory) -> Path:
    """Checkpoint of a `gem` policy with random weights, whose answers differ from question to question."""
    from lerobot_gem.policies.gem.configuration_gem import GemConfig

    config = GemConfig(preset="tiny", device="cpu", dtype="float32", stage="joint", allow_untrained=True)
    config.depth.loss_weight = 0
    gem, *processors = build_policy(config, questions)
    folder = tmp_path_factory.mktemp("policy") / "pretrained_model"
    return Path(save(folder, warm(gem), *processors))


@pytest.fixture(scope="module")
def plain(policy: Path, tmp_path_factory) -> Path:
    """The same backbone as a folder of plain Qwen3-VL."""
    folder = tmp_path_factory.mktemp("plain") / "qwen"
    convert(ConvertConfig(SourceCheckpoint(str(policy)), folder))
    return folder


def config_of(model: Path, data: Path, output: Path, **values) -> VqaEvaluationConfig:
    defaults = {"device": "cpu", "max_new_tokens": 6}
    dataset = DatasetOptions("local/noise", data, values.pop("episodes", None))
    return VqaEvaluationConfig(str(model), dataset, output, **defaults | values)


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


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "lerobot_gem.scripts.eval_vqa", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("kind_of_model", ["policy", pytest.param("plain", marks=pytest.mark.slow)])
def test_the_command_prints_and_writes_scores(kind_of_model, policy, plain, questions, tmp_path):
    output = tmp_path / "out"
    result = run(
        f"--model={policy if kind_of_model == 'policy' else plain}",
        "--dataset.repo_id=local/noise",
        f"--dataset.root={questions}",
        "--dataset.episodes=[0]",
        f"--output_dir={output}",
        "--max_new_tokens=6",
        "--max_rows=7",
        "--kinds=[count, object_distance, point, relation]",
        "--dtype=bfloat16",
        "--device=cpu",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "7 questions" in result.stdout
    assert re.search(r"^count +2 +\d  exact +2  ?0\.\d{3} .* 0\.500$", result.stdout, re.MULTILINE), (
        result.stdout
    )
    scores = json.loads((output / "scores.json").read_text())
    assert scores["config"]["max_rows"] == 7
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
        ({"dtype": "float16"}, "dtype='float16' is unknown: expected one of 'float32', 'bfloat16'"),
    ],
)
def test_bad_options_are_named(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path, tmp_path, tmp_path, **values)


def load(model: Path | str, **values):
    defaults = {"device": "cpu", "dtype": "float32", "max_new_tokens": 4}
    return load_answerer(model, **defaults | values)


def test_an_action_policy_that_kept_few_layers_is_refused(make_policy, tmp_path):
    policy, *processors = make_policy()
    folder = save(tmp_path / "action", policy, *processors)
    with pytest.raises(ValueError, match=r"keeps 2 of 4 decoder layers, .* Evaluate the `gem` checkpoint"):
        load(folder)


def test_an_action_policy_with_all_layers_answers_as_the_one_that_its_backbone_came_from(
    make_policy, policy, questions, tmp_path
):
    from lerobot_gem.policies.base_configuration import BackboneConfig
    from lerobot_gem.policies.gem_vla.configuration_gem_vla import ExpertConfig

    acting, *processors = make_policy(
        questions,
        backbone=BackboneConfig(pretrained=str(policy)),
        expert=ExpertConfig(conditioning_layers=[0, 2, 4]),
    )
    folder = save(tmp_path / "action", acting, *processors)
    asked = [([torch.rand(3, 64, 64)], "Where is it?")]
    assert load(folder).answer(asked) == load(policy).answer(asked)


def test_a_model_without_language_head_is_refused(plain, tmp_path):
    folder = tmp_path / "headless"
    shutil.copytree(plain, folder)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match="no language head. Evaluate the `gem` checkpoint"):
        load(folder)


def test_a_model_without_image_processor_is_refused(plain, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(plain, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match="preprocessor_config.json"):
        load(folder)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="No checkpoint at 'nobody/nothing'"):
        load("nobody/nothing")


def test_images_have_the_sizes_that_the_model_states_or_the_user(plain, policy, monkeypatch):
    """The tiny preset shows at most 128 x 128 pixels, 16 tokens; the plain folder's image processor says so too."""
    from lerobot_gem.models.backbone import GemBackbone

    shown = []
    whole = GemBackbone.for_generation

    def spy(backbone):
        model = whole(backbone)
        generate = model.generate
        monkeypatch.setattr(model, "generate", lambda **inputs: shown.append(inputs) or generate(**inputs))
        return model

    monkeypatch.setattr(GemBackbone, "for_generation", spy)
    question = [([torch.rand(3, 512, 512)], "What is it?")]
    for model, values in (
        (plain, {}),
        (policy, {}),
        (plain, {"max_pixels": 64 * 64}),
        (policy, {"max_pixels": 64 * 64}),
    ):
        load(model, **values).answer(question)
    with pytest.raises(ValueError, match="min_pixels=20000 and max_pixels=16384: expected the first"):
        load(plain, min_pixels=20_000)
    tokens = [int((inputs["input_ids"] == 3).sum()) for inputs in shown]
    assert tokens == [16, 16, 4, 4]
