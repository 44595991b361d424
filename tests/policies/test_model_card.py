"""What a policy's card on the Hub says."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.policies.model_card import make_model_card
from tests.conftest import TASKS
from tests.results.test_eval_info import write_eval_info


@pytest.mark.parametrize("tasks", [2, 500])
def test_the_model_card_says_how_to_load_the_policy(
    make_policy, dataset_root: Path, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelCard, "validate", lambda card: None)  # asks the Hub
    policy, *_ = make_policy()
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    if tasks > 2:
        meta.tasks = meta.tasks.iloc[[0] * tasks]
    card = policy.generate_model_card("local/noise", "gem_vla", "apache-2.0", None, dataset_meta=meta)
    title, *_ = card.text.strip().splitlines()
    assert title.startswith("# Model Card") and card.data.license == "apache-2.0"
    assert "lerobot_policy_gem" in card.text and "2605.28548" in card.text
    assert card.text.count(TASKS[0]) <= 22 and len(meta.tasks) == tasks


def test_evaluations_of_the_run_join_the_card(
    tmp_path: Path,
) -> None:
    cfg = SimpleNamespace(output_dir=tmp_path)

    def lerobots(*args, **kwargs) -> ModelCard:
        return ModelCard("---\nlicense: mit\n---\n# Model Card\n\nText.")

    assert "Evaluations" not in make_model_card(lerobots, cfg=cfg).text
    write_eval_info(tmp_path / "eval", {("libero_object", 9): [True] * 26 + [False] * 4})
    card = make_model_card(lerobots, cfg=cfg)
    assert "| eval | libero_object | 9 | 30 | 86.7% | 70.3% to 94.7% |" in card.text
