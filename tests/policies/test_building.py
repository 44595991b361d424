"""Where a policy's modules come from."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file, save_file
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints import files, formats
from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import get_preset
from lerobot_gem.policies import building
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.building import Sources
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save, warm  # noqa: F401 (the first is a fixture)


def test_a_generator_from_elsewhere_brings_no_joint_training_of_the_backbone(gem_checkpoint: Path) -> None:  # noqa: F811
    joint = PreTrainedConfig.from_pretrained(gem_checkpoint)
    joint.built.stages_done = ["connector", "generator", "joint"]
    joint.save_pretrained(gem_checkpoint)
    alone = GemConfig(preset="tiny", device="cpu", depth=DepthConfig(pretrained=str(gem_checkpoint)))
    assert alone.sources.stages_done == ["connector", "generator"]
    together = GemConfig(preset="tiny", device="cpu", backbone=BackboneConfig(pretrained=str(gem_checkpoint)))
    assert together.sources.stages_done == joint.built.stages_done
    # A backbone of all three stages with another generator.
    whole = open_checkpoint(gem_checkpoint)
    other = replace(whole, config={"type": "gem", "built": {"stages_done": ["connector"]}})
    assert Sources(whole, other, None).stages_done == ["connector", "joint"]
    fresh = replace(whole, format="sana", config={})
    assert Sources(whole, fresh, None).stages_done == ["joint"]
    assert Sources(replace(whole, format="qwen3-vl", config={}), fresh, None).stages_done == []


@pytest.mark.parametrize("weight", [0.0, 0.1], ids=["without depth", "with depth"])
def test_an_action_policy_hands_on_the_stages_behind_it(
    weight: float,
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
    tmp_path: Path,
) -> None:
    pretrained = str(gem_checkpoint)
    for name in ("first", "second"):
        policy, *processors = make_policy(
            depth_dataset_root,
            backbone=BackboneConfig(pretrained=pretrained),
            depth=DepthConfig(loss_weight=weight),
        )
        assert policy.config.built.stages_done == ["joint", "action"]
        pretrained = save(tmp_path / name, policy, *processors)


def test_what_a_checkpoint_of_version_0_1_does_not_say(gem_checkpoint: Path) -> None:  # noqa: F811
    """A `gem_vla` with a generator is taken for one of GEM's, as what was released."""
    whole = open_checkpoint(gem_checkpoint)
    old = {"type": "gem_vla", "backbone": {"architecture": {}}, "depth": {"architecture": {}}}
    with_depth = replace(whole, config=old)
    assert Sources(with_depth, with_depth, None).stages_done == ["connector", "generator", "joint"]
    weights = {name: weight for name, weight in whole.weights.items() if not name.startswith("generator.")}
    assert Sources(replace(with_depth, weights=weights), None, None).stages_done == []


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "bfloat16", "optimizer_name": "adamw_8bit"},
        {"backbone": {"freeze_vision_tower": True}},
    ],
    ids=["bfloat16", "frozen in part"],
)
def test_a_backbone_is_read_into_the_types_that_it_is_stored_in(
    options: dict,
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = BackboneConfig(pretrained=str(gem_checkpoint), **options.pop("backbone", {}))
    plain, *_ = make_policy(backbone=BackboneConfig(pretrained=str(gem_checkpoint)))
    made, make = [], files._made
    monkeypatch.setattr(files, "_made", lambda *read: made.append(make(*read)) or made[-1])
    policy, *_ = make_policy(backbone=backbone, dtype="bfloat16", **options)
    weights = policy.backbone.state_dict()
    assert Counter(weight.dtype for weight in made) == Counter(weight.dtype for weight in weights.values())
    assert {weight.dtype for weight in made} == {torch.float32, torch.bfloat16}
    for name, weight in plain.backbone.state_dict().items():
        assert weights[name].equal(weight.to(weights[name].dtype)), name


def test_what_is_loaded_is_not_initialised_before(
    make_gem,
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = {
        "backbone": BackboneConfig(pretrained=str(gem_checkpoint)),
        "depth": DepthConfig(loss_weight=0.1),
    }
    policy, *processors = make_policy(depth_dataset_root, **sources)
    expert = ExpertConfig(pretrained=save(tmp_path / "policy", warm(policy), *processors))
    for initialiser in ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, initialiser, None)
    new, *_ = make_policy(depth_dataset_root, expert=expert, **sources)
    stored = open_checkpoint(gem_checkpoint).weights | {
        f"expert.{name}": weight for name, weight in policy.expert.state_dict().items()
    }
    assert new.state_dict().keys() == stored.keys()
    for name, weight in new.state_dict().items():
        expected = stored[name]
        assert weight.equal(expected if isinstance(expected, torch.Tensor) else expected.read()), name


def test_a_connector_that_a_source_lacks_starts_afresh(make_gem, gem_checkpoint: Path) -> None:  # noqa: F811
    """As that of a SANA pipeline does."""
    file = Path(gem_checkpoint, "model.safetensors")
    weights = {name: weight for name, weight in load_file(file).items() if "generator.connector" not in name}
    save_file(weights, file)
    options = {"stage": "connector", "depth": DepthConfig(pretrained=str(gem_checkpoint))}
    policy, *_ = make_gem(**options)
    assert policy.random_parts >= {"connector"} and not policy.random_parts & {"transformer", "autoencoder"}
    for name, weight in policy.generator.state_dict().items():
        assert name.startswith("connector.") or weight.equal(weights[f"generator.{name}"]), name
    first, *_, norm = policy.generator.connector
    assert norm.weight.eq(1).all()
    assert first.weight.std().item() == pytest.approx((3 * first.in_features) ** -0.5, rel=0.05)


@pytest.mark.parametrize("name", ["connector", "transformer", "autoencoder"])
def test_a_part_that_was_built_without_weights_starts_as_any_other(name: str) -> None:
    architecture = get_preset("tiny").depth
    plain = getattr(DepthGenerator(architecture, 128), name)
    with no_init_weights():
        part = getattr(DepthGenerator(architecture, 128), name)
    for layer in part.modules():
        if hasattr(layer, "reset_parameters"):
            for weight in layer.parameters(recurse=False):
                weight.data.fill_(torch.nan)
    building._initialise(part)
    for (weight_name, weight), own in zip(plain.named_parameters(), part.parameters(), strict=True):
        if weight.numel() > 1000:
            assert own.std().item() == pytest.approx(weight.std().item(), rel=0.1), weight_name
            assert own.mean().item() == pytest.approx(weight.mean().item(), abs=0.1), weight_name
        else:
            assert own.isfinite().all() and (own.std() > 0) == (weight.std() > 0), weight_name


@pytest.mark.parametrize("folder", ["/no/such", "."])
def test_an_autoencoder_that_is_not_there_is_named(folder: str, make_gem) -> None:
    with pytest.raises(
        FileNotFoundError, match=f"depth.autoencoder='{folder}' is no folder with a config.json"
    ):
        make_gem(depth=DepthConfig(autoencoder=folder))


def test_a_source_is_opened_once_for_policy_and_processors(
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def counted(pretrained: str, **hub: str) -> formats.Checkpoint:
        opened.append(str(pretrained))
        return formats.open_checkpoint(pretrained, **hub)

    monkeypatch.setattr(building, "open_checkpoint", counted)
    source = str(gem_checkpoint)
    policy, *_ = make_policy(
        depth_dataset_root, backbone=BackboneConfig(pretrained=source), depth=DepthConfig(loss_weight=0.1)
    )
    assert policy.generator is not None
    assert opened == [source]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_checkpointing_is_of_the_generator_too(make_gem, checkpointing: bool) -> None:
    policy, *_ = make_gem(backbone=BackboneConfig(gradient_checkpointing=checkpointing))
    assert policy.generator.transformer.is_gradient_checkpointing == checkpointing


def test_workers_of_runs_with_and_without_depth_are_seeded_alike(
    make_policy,
    gem_checkpoint: Path,  # noqa: F811
    depth_dataset_root: Path,
) -> None:
    """LeRobot draws their seed from torch's generator after the policy was built."""
    backbone = BackboneConfig(pretrained=str(gem_checkpoint))
    seeds, weights = [], []
    for weight in (0, 0.1):
        torch.manual_seed(7)
        policy, *_ = make_policy(depth_dataset_root, backbone=backbone, depth=DepthConfig(loss_weight=weight))
        seeds.append(int(torch.empty((), dtype=torch.int64).random_()))
        weights.append(policy.expert.register_tokens)
    assert seeds[0] == seeds[1]
    assert weights[0].equal(weights[1])
