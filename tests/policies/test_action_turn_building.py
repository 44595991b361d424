"""Action tokens are fitted to the dataset as the pipeline normalises it, and say what they cost."""

import logging

import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_gem.policies.action_turn_building import build_action_turn
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.token_options import ActionTokensConfig
from tests.conftest import ACTION_DIM, EPISODES, FRAMES, read_batch


def test_tokens_fit_what_the_preprocessor_hands_on(make_policy, dataset_root, caplog):
    caplog.set_level(logging.INFO)
    policy, preprocess, _ = make_policy(action_tokens=ActionTokensConfig(loss_weight=1.0, vocabulary=64))
    batch = preprocess(read_batch(dataset_root, range(EPISODES * FRAMES), chunk_size=4))
    report = policy.action_turn.tokens.measure(batch["action"].numpy())
    assert f"Action tokens of 'local/noise': {report}." in caplog.text
    assert policy.action_turn.errors[-1] == pytest.approx(report.mean_error, rel=1e-3)
    assert policy.config.built.action_turn == policy.action_turn.to_dict()
    again, *_ = make_policy(action_tokens=ActionTokensConfig(loss_weight=1.0, vocabulary=64))
    assert again.action_turn == policy.action_turn
    assert policy.action_turn.action_dim == ACTION_DIM


def test_a_policy_that_learns_no_tokens_reads_no_actions(make_policy, dataset_root):
    config = GemVLAConfig(preset="tiny", device="cpu")
    meta = LeRobotDatasetMetadata("nobody/reads", root=dataset_root)
    meta.root = dataset_root / "nowhere"
    assert build_action_turn(config, meta, weights_follow=False, embedding_rows=1024) is None
    assert config.built.action_turn == {}


def test_what_is_trained_on_without_tokens_has_none_any_more(make_policy, dataset_root, caplog):
    policy, *_ = make_policy(action_tokens=ActionTokensConfig(loss_weight=1.0, vocabulary=64))
    config, meta = policy.config, LeRobotDatasetMetadata("local/noise", root=dataset_root)
    config.action_tokens.loss_weight = 0.0
    assert build_action_turn(config, meta, weights_follow=True, embedding_rows=1024) is None
    assert config.built.action_turn == {}
    assert (
        "is trained on without them (action_tokens.loss_weight=0): what is saved acts by flow alone"
        in caplog.text
    )
    config.action_tokens.act = "tokens"
    with pytest.raises(ValueError, match="what is trained without tokens can't write them"):
        build_action_turn(config, meta, weights_follow=True, embedding_rows=1024)


def test_without_a_dataset_there_is_nothing_to_fit():
    """As lerobot-eval builds a policy from scratch."""
    config = GemVLAConfig(preset="tiny", device="cpu", action_tokens=ActionTokensConfig(loss_weight=1.0))
    assert build_action_turn(config, None, weights_follow=False, embedding_rows=1024) is None


def test_a_checkpoints_tokens_are_measured_on_the_new_dataset(make_policy, dataset_root, caplog):
    policy, *_ = make_policy(action_tokens=ActionTokensConfig(loss_weight=1.0, vocabulary=64))
    caplog.set_level(logging.INFO)
    caplog.clear()  # a command that another test ran may have set the level before the policy was built
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    turn = build_action_turn(policy.config, meta, weights_follow=True, embedding_rows=1024)
    assert turn == policy.action_turn
    assert caplog.text.count("Action tokens of 'local/noise'") == 1
