"""The stage table as data."""

import pytest

from lerobot_gem.training.stages import STAGES, loss_weights, part_of


def test_weights_of_the_losses():
    assert loss_weights("connector", 0.1) == loss_weights("generator", 0.1) == {"depth": 1.0}
    assert loss_weights("joint", 0.1) == {"language": 1.0, "depth": 0.1}
    assert loss_weights("action", 0.1) == {"action": 1.0, "depth": 0.1}
    assert loss_weights("action", 0.0) == {"action": 1.0}


def test_each_stage_follows_all_before_it():
    names = list(STAGES)
    assert [list(stage.after) for stage in STAGES.values()] == [names[:i] for i in range(4)]


def test_the_merger_is_no_part_of_the_vision_tower():
    assert part_of("backbone.model.visual.blocks.0.norm1.weight") == "vision_tower"
    assert part_of("backbone.model.visual.deepstack_merger_list.0.norm.weight") == "merger"
    with pytest.raises(KeyError, match="'stranger' belongs to no part"):
        part_of("stranger")
