"""The stage table as data."""

import pytest

from lerobot_gem.training.stages import (
    DEPTH_LOSS_WEIGHT,
    LANGUAGE_LOSS_WEIGHT,
    STAGES,
    TOKENS_LOSS_WEIGHT,
    loss_weights,
    part_of,
    skipped_before,
)

OFF = {DEPTH_LOSS_WEIGHT: 0.0, TOKENS_LOSS_WEIGHT: 0.0, LANGUAGE_LOSS_WEIGHT: 0.0}


def test_weights_of_the_losses():
    fields = OFF | {DEPTH_LOSS_WEIGHT: 0.1}
    assert loss_weights("connector", fields) == loss_weights("generator", fields) == {"depth": 1.0}
    assert loss_weights("joint", fields) == {"language": 1.0, "depth": 0.1}
    assert loss_weights("action", fields) == {"action": 1.0, "depth": 0.1}
    assert loss_weights("action", OFF) == {"action": 1.0}
    on = fields | {TOKENS_LOSS_WEIGHT: 0.5, LANGUAGE_LOSS_WEIGHT: 0.25}
    assert loss_weights("joint", on) == loss_weights("joint", fields)
    assert loss_weights("action", on) == {"action": 1.0, "depth": 0.1, "tokens": 0.5, "language": 0.25}


def test_each_stage_follows_all_before_it():
    assert list(STAGES) == ["connector", "generator", "joint", "action"]
    assert skipped_before("connector", []) == []
    assert skipped_before("action", ["generator"]) == ["connector", "joint"]


def test_the_merger_is_no_part_of_the_vision_tower():
    assert part_of("backbone.model.visual.blocks.0.norm1.weight") == "vision_tower"
    assert part_of("backbone.model.visual.deepstack_merger_list.0.norm.weight") == "merger"
    with pytest.raises(KeyError, match="'stranger' belongs to no part"):
        part_of("stranger")
