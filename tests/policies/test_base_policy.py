"""What both policies do alike."""

from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig

from lerobot_gem.policies import base_policy
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import build_policy
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save  # noqa: F401 (fixtures)


def test_the_baseline_without_depth_leaves_the_generator_out(gem_checkpoint: Path, make_gem) -> None:  # noqa: F811
    config = PreTrainedConfig.from_pretrained(gem_checkpoint)
    config.stage, config.depth.loss_weight = "joint", 0.0
    policy = GemPolicy.from_pretrained(gem_checkpoint, config=config)
    assert policy.generator is None
    with pytest.raises(ValueError, match="learns no depth and has no depth generator"):
        policy.generate_depth({})
    config.backbone.freeze_vision_tower = config.backbone.freeze_language_model = True
    with pytest.raises(ValueError, match="has vision_tower, merger, language_model, but .*") as caught:
        GemPolicy.from_pretrained(gem_checkpoint, config=config)
    assert "--policy.backbone.freeze_vision_tower=false or" in str(caught.value)
    assert "expert" not in str(caught.value)


@pytest.mark.parametrize("policy_type", ["gem", "gem_vla"])
def test_a_step_draws_its_own_and_a_checkpoint_draws_on(
    policy_type: str,
    make_gem,
    make_policy,
    depth_dataset_root: Path,
    depth_batch: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if policy_type == "gem":
        policy, *processors = make_gem(stage="joint")
    else:
        policy, *processors = make_policy(depth_dataset_root, camera_dropout=0.5)
    inputs = processors[0](depth_batch)

    def loss() -> float:
        torch.manual_seed(0)
        return policy.train()(inputs)[0].item()

    before = [loss(), loss()]
    folder = save(tmp_path / "saved", policy, *processors)
    before.append(loss())
    assert len(set(before)) == 3

    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = Path(folder)
    policy, *_ = build_policy(config, depth_dataset_root)
    policy.eval()(inputs)
    assert policy.config.built.steps_done == 2  # validation is no step
    monkeypatch.setattr(base_policy, "process_rank", lambda: 1)
    other = loss()
    policy.config.built.steps_done = 2
    monkeypatch.setattr(base_policy, "process_rank", lambda: 0)
    assert loss() == before[2] != other


@pytest.mark.parametrize("policy_class", [GemPolicy, GemVLAPolicy])
def test_a_misspelt_argument_is_an_error(policy_class) -> None:
    with pytest.raises(TypeError, match="dataset_metadata"):
        policy_class(policy_class.config_class(preset="tiny", device="cpu"), dataset_metadata=None)


@pytest.mark.parametrize("policy_type", ["gem", "gem_vla"])
def test_validations_draw_alike_and_training_does_not_notice(
    policy_type: str, make_gem, make_policy, depth_dataset_root: Path, depth_batch: dict
) -> None:
    policy, preprocess, _ = (
        make_gem(stage="joint") if policy_type == "gem" else make_policy(depth_dataset_root)
    )
    inputs = {**preprocess(depth_batch), "index": torch.arange(4)}
    policy.eval()
    before = torch.get_rng_state()
    losses = [policy(inputs)[0].item() for _ in range(2)]
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    losses.append(policy(inputs)[0].item())
    assert len(set(losses)) == 1
    assert policy(inputs | {"index": torch.arange(4) + 4})[0].item() != losses[0]  # other frames draw others


def test_a_batch_that_nothing_is_learned_from_changes_nothing(
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
    depth_batch: dict,
    tmp_path: Path,
) -> None:
    """The generator alone is trained, and no pixel has depth."""
    policy, preprocess, _ = make_policy(
        depth_dataset_root,
        backbone=BackboneConfig(
            pretrained=str(gem_checkpoint), freeze_vision_tower=True, freeze_language_model=True
        ),
        expert=ExpertConfig(pretrained=save(tmp_path / "expert", *make_policy()), freeze=True),
        depth=DepthConfig(loss_weight=0.1),
    )
    for key in list(policy.config.built.depth_cameras.values()):
        depth_batch[key] = torch.zeros_like(depth_batch[key])
    loss, logs = policy.train()(preprocess(depth_batch))
    loss.backward()
    assert logs["frames_with_depth"] == 0 and logs["action_loss"] > 0
    assert not any(weight.grad.any() for weight in policy.parameters() if weight.grad is not None)
