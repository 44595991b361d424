"""Questions learned beside actions: of the robot's own frames, and of a second dataset."""

import json
import logging
from pathlib import Path

import pytest
import torch

from lerobot_gem.policies.depth_loss import DRAWN
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.policies.token_options import CoTrainingConfig
from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_QUESTIONS, OBS_ROW_SAMPLES
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer
from tests.conftest import ACTION_DIM, write_dataset
from tests.policies.gem.test_modeling_gem import warm
from tests.policies.gem_vla.test_modeling_gem_vla import grads

TOKENS = "observation.language.tokens"
QUESTIONS = [
    {"role": "user", "content": "How many mugs?", "camera": None},
    {"role": "assistant", "content": "Seven mugs."},
]


@pytest.fixture(scope="module")
def question_root(tmp_path_factory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("questions") / "data",
        action_dim=0,
        state_dim=0,
        messages=json.dumps(QUESTIONS),
    )


def no_flow() -> dict[str, torch.Tensor]:
    return {"noise": torch.zeros(3, 4, ACTION_DIM), "time": torch.full((3,), 0.5)}


def learned(questions: dict[str, torch.Tensor]) -> list[str]:
    tokenizer = build_tiny_tokenizer()
    return [tokenizer.decode(row[row != IGNORED]) for row in questions[OBS_LABELS]]


def test_rows_of_the_robots_own_frames_are_learned_as_in_stage_3(
    make_policy, make_gem, depth_dataset_root, depth_batch
):
    options = CoTrainingConfig(loss_weight=0.5)
    policy, preprocess, _ = make_policy(depth_dataset_root, co_training=options)
    warm(policy)
    inputs = preprocess(depth_batch)
    questions = inputs[OBS_QUESTIONS]
    # Both cameras of frame 0, one of frame 3, none of frame 4.
    assert questions[OBS_ROW_SAMPLES].tolist() == [0, 0, 1]
    assert learned(questions) == ["There.<|im_end|>\n"] * 3
    assert "Where is it in" in build_tiny_tokenizer().decode(questions[TOKENS][0])
    loss, logs = policy(inputs, **no_flow(), reduction="none")
    assert loss.mean().item() == pytest.approx(logs["action_loss"] + 0.5 * logs["language_loss"], rel=1e-4)

    gem, of_gem, _ = make_gem(stage="joint")
    gem.backbone.load_state_dict(policy.backbone.state_dict())
    stage_3 = of_gem(depth_batch)
    # Frame 4 has no rows: stage 3 asks it for its task.
    labels = stage_3[OBS_LABELS].masked_fill((stage_3[OBS_ROW_SAMPLES] == 2)[:, None], IGNORED)
    _, expected = gem({**stage_3, OBS_LABELS: labels})
    assert logs["language_loss"] == pytest.approx(expected["language_loss"], rel=1e-4)

    policy(inputs, **no_flow())[0].backward()
    assert not {name for name, _ in policy.named_parameters()} - grads(policy).keys()


def test_a_frame_of_another_dataset_is_found_by_the_first_action_of_its_chunk(
    make_policy, depth_dataset_root, depth_batch
):
    _, preprocess, _ = make_policy(root=depth_dataset_root, co_training=CoTrainingConfig(loss_weight=1.0))
    preprocess(depth_batch)
    actions = depth_batch["action"].clone()
    actions[0, 0, 2] += 0.01
    with pytest.raises(ValueError, match=r"Frame 0 has action=\[.*of another dataset"):
        preprocess({**depth_batch, "action": actions})


def test_a_batch_without_questions_and_acting_go_on(make_policy, depth_dataset_root, depth_batch):
    policy, preprocess, _ = make_policy(depth_dataset_root, co_training=CoTrainingConfig(loss_weight=1.0))
    warm(policy)
    inputs = preprocess(depth_batch)
    without = {key: value for key, value in inputs.items() if key != OBS_QUESTIONS}
    loss, logs = policy(without, **no_flow())
    assert logs["language_loss"] == 0 and loss.item() == pytest.approx(logs["action_loss"])
    seen = {key: value for key, value in depth_batch.items() if key not in ("index", "action")}
    acting = preprocess(seen)
    assert OBS_QUESTIONS not in acting
    noise = torch.randn(3, 4, ACTION_DIM)
    assert policy.predict_action_chunk(acting, noise=noise).equal(
        policy.predict_action_chunk(inputs, noise=noise)
    )


def test_micro_batches_and_depth_learn_the_same_beside_questions(
    make_policy, depth_dataset_root, depth_batch
):
    losses = []
    for size in (None, 1, 2):
        policy, preprocess, _ = make_policy(
            depth_dataset_root, co_training=CoTrainingConfig(loss_weight=1.0), micro_batch_size=size
        )
        warm(policy).train()
        policy.batch_size = 4  # as if this were the last batch of an epoch
        assert DRAWN not in preprocess(depth_batch)
        losses.append(policy(preprocess(depth_batch), **no_flow(), reduction="none")[0])
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


def test_a_second_dataset_of_questions_without_actions(
    make_policy, dataset_root, batch, question_root, caplog
):
    caplog.set_level(logging.INFO)
    options = CoTrainingConfig(
        loss_weight=1.0, repo_id="local/noise", root=str(question_root), share=0.5, num_workers=0
    )
    policy, preprocess, _ = make_policy(co_training=options)
    inputs = preprocess(batch)
    assert OBS_QUESTIONS not in inputs
    questions = policy.questions.draw(4, torch.device("cpu"))
    assert questions[OBS_ROW_SAMPLES].tolist() == [0, 2]  # half of the batch, spread over it
    assert "2 for each batch of 4 (co_training.share=0.5, at least 1), drawn from 30 frames" in caplog.text
    assert learned(questions) == ["Seven mugs.<|im_end|>\n"] * 2
    # A last, small batch; and a larger one than until now, as behind the first of a run that goes on.
    for batch_size, samples in ((1, [0, 0]), (6, [0, 2, 4]), (4, [0, 1, 2])):
        drawn = policy.questions.draw(batch_size, torch.device("cpu"))
        assert drawn[OBS_ROW_SAMPLES].tolist() == samples
    policy.train()
    loss, logs = policy(inputs)
    assert logs["language_loss"] > 1
    loss.backward()
    assert policy.eval()(inputs)[1]["language_loss"] == 0  # no draws where nothing is trained


def test_a_checkpoint_goes_on_with_its_second_dataset(make_policy, batch, question_root, tmp_path):
    options = CoTrainingConfig(loss_weight=1.0, repo_id="local/noise", root=str(question_root), num_workers=0)
    policy, preprocess, _ = make_policy(co_training=options)
    policy.save_pretrained(tmp_path)
    preprocess.save_pretrained(tmp_path)
    config = GemVLAPolicy.config_class.from_pretrained(tmp_path)
    config.pretrained_path = tmp_path
    again = GemVLAPolicy.from_pretrained(
        tmp_path, config=config, dataset_meta=policy.config._runtime_dataset_meta
    )
    assert learned(again.questions.draw(4, torch.device("cpu"))) == ["Seven mugs.<|im_end|>\n"]
    config.co_training.repo_id = None
    with pytest.raises(
        ValueError, match="was trained with questions of a second dataset .co_training.repo_id.. Expected"
    ):
        GemVLAPolicy.from_pretrained(
            tmp_path, config=config, dataset_meta=policy.config._runtime_dataset_meta
        )


def test_a_second_dataset_is_named_by_its_own_options(make_policy, tmp_path):
    for root, message in (
        (str(tmp_path / "nowhere"), "co_training.repo_id='local/q': No dataset in"),
        (None, "co_training.repo_id='local/q': .*--policy.co_training.root"),
    ):
        with pytest.raises(OSError, match=message):
            make_policy(co_training=CoTrainingConfig(loss_weight=1.0, repo_id="local/q", root=root))


def test_what_has_no_questions_is_one_error(make_policy, dataset_root, tmp_path):
    with pytest.raises(ValueError, match=r"'local/noise' has no questions: expected language columns"):
        make_policy(co_training=CoTrainingConfig(loss_weight=1.0))
    with pytest.raises(ValueError, match=r"'local/noise' has no questions"):
        make_policy(
            co_training=CoTrainingConfig(loss_weight=1.0, repo_id="local/noise", root=str(dataset_root))
        )
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path)
    config = GemVLAPolicy.config_class.from_pretrained(tmp_path)
    config.co_training.loss_weight = 1.0
    with pytest.raises(
        ValueError, match="the checkpoint was trained without questions .co_training.loss_weight=0.. Expected"
    ):
        GemVLAPolicy.from_pretrained(
            tmp_path, config=config, dataset_meta=policy.config._runtime_dataset_meta
        )
