"""What is checked when a checkpoint is loaded."""

from pathlib import Path

import pytest
from lerobot.configs import PreTrainedConfig

from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import CAMERAS
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save  # noqa: F401 (fixtures)


@pytest.fixture
def checkpoint(make_policy, tmp_path: Path) -> Path:
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.parametrize("change", [{"names": CAMERAS[::-1]}, {"max_pixels": 64 * 64}])
def test_cameras_are_those_of_the_checkpoint(checkpoint: Path, change: dict) -> None:
    config = PreTrainedConfig.from_pretrained(checkpoint)
    assert GemVLAPolicy.from_pretrained(checkpoint, config=config).config.cameras.names == list(CAMERAS)
    for name, value in change.items():
        setattr(config.cameras, name, value)
    with pytest.raises(ValueError, match=r"is not what the checkpoint was trained with, .*--rename_map"):
        GemVLAPolicy.from_pretrained(checkpoint, config=config)


def test_the_baseline_without_depth_leaves_the_generator_out(gem_checkpoint: Path, make_gem) -> None:  # noqa: F811
    config = PreTrainedConfig.from_pretrained(gem_checkpoint)
    config.stage, config.depth.loss_weight = "joint", 0.0
    policy = GemPolicy.from_pretrained(gem_checkpoint, config=config)
    assert policy.generator is None
    with pytest.raises(ValueError, match="learns no depth and has no depth generator"):
        policy.generate_depth({})
