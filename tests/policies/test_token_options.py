"""Options of tokens and questions: each mistake is one error."""

import pytest

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.token_options import ActionTokensConfig, CoTrainingConfig
from lerobot_gem.validation import ConfigurationError


def test_by_default_nothing_but_the_flow_is_learned():
    config = GemVLAConfig(preset="tiny", device="cpu")
    assert config.loss_weights == {"action": 1.0}
    assert not config.learns_tokens and not config.asks_about_frames


def test_weights_are_those_of_the_one_table():
    config = GemVLAConfig(
        preset="tiny",
        device="cpu",
        action_tokens=ActionTokensConfig(loss_weight=0.5),
        co_training=CoTrainingConfig(loss_weight=0.25),
    )
    assert config.loss_weights == {"action": 1.0, "tokens": 0.5, "language": 0.25}
    assert config.learns_tokens and config.asks_about_frames
    config.co_training.repo_id = "me/questions"
    assert not config.asks_about_frames


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act": "words"}, "action_tokens.act='words' is unknown: expected one of 'flow', 'tokens'"),
        ({"loss_weight": -1.0}, "action_tokens.loss_weight=-1.0: expected 0 or more"),
        ({"loss_weight": float("inf")}, "action_tokens.loss_weight=inf: expected 0 or more"),
        ({"temperature": -1.0}, "action_tokens.temperature=-1.0: expected 0 for the likeliest"),
        ({"temperature": 1e-40}, "action_tokens.temperature=1e-40: .* or at least 0.001"),
        ({"temperature": float("inf")}, "action_tokens.temperature=inf: expected 0"),
        ({"scale": 0.0}, "action_tokens.scale=0.0: expected more than 0"),
        ({"vocabulary": 0}, "action_tokens.vocabulary=0: expected at least 1"),
        ({"max_coefficients": 0}, "action_tokens.max_coefficients=0: expected at least 1"),
        (
            {"insulate": True},
            "insulate=true with action_tokens.loss_weight=0: .*loss_weight=1, or --policy.action_tokens.insulate=false",
        ),
    ],
)
def test_action_tokens_that_make_no_sense(options, message):
    with pytest.raises(ConfigurationError, match=message):
        ActionTokensConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_weight": -1.0}, "co_training.loss_weight=-1.0: expected 0 or more"),
        ({"share": 0.0}, "co_training.share=0.0: expected a share of the batch"),
        ({"share": 1.5}, "co_training.share=1.5: expected a share of the batch"),
        ({"root": "/data/questions"}, "root='/data/questions' without co_training.repo_id"),
        ({"num_workers": -1}, "co_training.num_workers=-1: expected 0 or more"),
        (
            {"repo_id": "me/questions"},
            "repo_id='me/questions' with co_training.loss_weight=0: .*repo_id=null",
        ),
    ],
)
def test_questions_that_make_no_sense(options, message):
    with pytest.raises(ConfigurationError, match=message):
        CoTrainingConfig(**options)


def test_answers_teach_something():
    with pytest.raises(ConfigurationError, match="loss_weight=1.0 with the whole backbone frozen"):
        GemVLAConfig(
            preset="tiny",
            device="cpu",
            backbone=BackboneConfig(freeze_vision_tower=True, freeze_language_model=True),
            co_training=CoTrainingConfig(loss_weight=1.0),
        )


def test_questions_about_frames_need_an_image_for_each_camera():
    with pytest.raises(ConfigurationError, match="co_training.loss_weight=1.0 with cameras.layout='concat'"):
        GemVLAConfig(
            preset="tiny",
            device="cpu",
            cameras=CamerasConfig(layout="concat"),
            co_training=CoTrainingConfig(loss_weight=1.0),
        )
