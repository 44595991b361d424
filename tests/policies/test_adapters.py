"""A policy that was trained with LoRA, through LeRobot's own loading, and as a checkpoint of ours."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import ACTION_DIM, build_policy, read_batch
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save  # noqa: F401 (fixtures)

LORA = {"method_type": "LORA", "r": 2}


def save_adapter(folder: Path, adapted, *processors) -> str:
    """As LeRobot's training saves it, after something was learned."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return save(folder, adapted, adapted.config, *processors)


def load(folder: str, root: Path, **changes):
    """As `lerobot-train --policy.path` and `lerobot-eval` build it."""
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    for name, value in changes.items():
        setattr(config, name, value)
    return build_policy(config, root)


@pytest.fixture(params=[0.0, 0.1], ids=["without depth", "with depth"])
def trained(request, make_policy, gem_checkpoint, depth_dataset_root, tmp_path):  # noqa: F811
    """An adapter of a new policy: what was trained, the adapter's folder, a batch, a chunk for some noise."""
    policy, preprocess, postprocess = make_policy(
        depth_dataset_root,
        backbone=BackboneConfig(pretrained=gem_checkpoint),
        depth=DepthConfig(loss_weight=request.param),
    )
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    folder = save_adapter(tmp_path / "adapter", adapted, preprocess, postprocess)
    inputs = preprocess(read_batch(depth_dataset_root, (0, 3), chunk_size=4))
    noise = torch.randn(2, 4, ACTION_DIM)
    return adapted, folder, inputs, noise, adapted.predict_action_chunk(inputs, noise=noise)


def test_an_adapter_of_a_new_policy_loads_as_it_was(trained, depth_dataset_root):
    adapted, folder, inputs, noise, chunk = trained
    loaded, *_ = load(folder, depth_dataset_root)
    assert isinstance(loaded, PeftModel)
    assert loaded.predict_action_chunk(inputs, noise=noise).equal(chunk)
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == {
        name for name, p in adapted.named_parameters() if p.requires_grad
    }
    # As a rollout does, which knows no dataset.
    config = deepcopy(adapted.config)
    base = GemVLAPolicy.from_pretrained(config.backbone.pretrained, config=config, revision=None)
    acting = PeftModel.from_pretrained(base, folder)
    assert base.generator is None
    assert acting.predict_action_chunk(inputs, noise=noise).equal(chunk)


def test_an_adapter_of_a_new_policy_does_not_act_in_8_bits(trained):
    adapted, *_ = trained
    config = deepcopy(adapted.config)
    config.quantization = "int8"
    with pytest.raises(ValueError, match="quantization='int8' with an adapter.*Merge it"):
        GemVLAPolicy.from_pretrained(config.backbone.pretrained, config=config, revision=None)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_a_resumed_run_keeps_weights_as_the_first_one_did(
    weights,
    make_policy,
    gem_checkpoint,  # noqa: F811
    depth_dataset_root,
    tmp_path,
):
    """Adapters too, which PEFT loads in float32, over a backbone that it loads as if it were trained."""
    policy, *processors = make_policy(
        depth_dataset_root,
        backbone=BackboneConfig(pretrained=gem_checkpoint),
        depth=DepthConfig(loss_weight=0.1),
        weights=weights,
        dtype="bfloat16",
        optimizer_name="adamw_8bit" if weights == "bfloat16" else "adamw",
    )
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    adapted.get_optim_params()
    resumed, *_ = load(save_adapter(tmp_path / "adapter", adapted, *processors), depth_dataset_root)
    resumed.get_optim_params()
    kept, again = (
        {n: (p.dtype, p.requires_grad) for n, p in one.named_parameters()} for one in (adapted, resumed)
    )
    assert again == kept
    assert torch.bfloat16 in {dtype for dtype, _ in kept.values()}


def test_an_adapter_becomes_a_whole_policy(trained, depth_dataset_root, tmp_path):
    adapted, folder, inputs, noise, chunk = trained
    convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / "whole", format="policy"))
    whole = GemVLAPolicy.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(whole.predict_action_chunk(inputs, noise=noise), chunk, rtol=1e-4, atol=1e-5)
    again, *_ = load(str(tmp_path / "whole"), depth_dataset_root)
    assert not isinstance(again, PeftModel)
    merged = adapted.merge_and_unload().state_dict()
    assert again.state_dict().keys() == merged.keys()
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="is no adapter"):
        convert(ConvertConfig(SourceCheckpoint(str(tmp_path / "whole")), tmp_path / "b", format="policy"))


def test_an_adapter_of_a_checkpoint_names_it(make_policy, gem_checkpoint, dataset_root, tmp_path):  # noqa: F811
    whole = save(tmp_path / "whole", *make_policy(backbone=BackboneConfig(pretrained=gem_checkpoint)))
    policy, *processors = load(whole, dataset_root)
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    folder = save_adapter(tmp_path / "adapter", adapted, *processors)
    assert adapted.peft_config["default"].base_model_name_or_path == whole
    loaded, *_ = load(folder, dataset_root)
    for name, weight in loaded.state_dict().items():
        if "original_module" not in name:
            assert weight.equal(adapted.state_dict()[name]), name
    with pytest.raises(ValueError, match="adapter is an adapter: expected a whole policy here. Merge it"):
        type(policy).from_pretrained(folder)  # as LeRobot's policy server does
    shutil.rmtree(whole)
    with pytest.raises(FileNotFoundError, match="is an adapter of .* which it needs"):
        convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / "merged", format="policy"))


@pytest.fixture(params=[True, False], ids=["of a new policy", "of a whole policy"])
def based(request, make_policy, gem_checkpoint, dataset_root, tmp_path) -> tuple[str, str]:  # noqa: F811
    """What an adapter was trained on, a backbone's checkpoint or a whole policy, and the adapter's folder."""
    policy, *processors = make_policy(backbone=BackboneConfig(pretrained=gem_checkpoint))
    base = gem_checkpoint
    if not request.param:
        base = save(tmp_path / "whole", policy, *processors)
        policy, *processors = load(base, dataset_root)
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    return base, save_adapter(tmp_path / "adapter", adapted, *processors)


def test_a_base_that_was_moved_is_named_with_its_adapter(based, dataset_root, tmp_path):
    base, folder = based
    moved = shutil.move(base, tmp_path / "moved")
    message = f"^{folder} is an adapter of '{base}', which it needs: .*No checkpoint at '{base}'"
    with pytest.raises(FileNotFoundError, match=message):
        load(folder, dataset_root)
    with pytest.raises(FileNotFoundError, match=message):
        convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / "merged", format="policy"))
    for name in ("adapter_config.json", "config.json"):  # as the message says
        file = Path(folder, name)
        file.write_text(file.read_text().replace(f'"{base}"', f'"{moved}"'))
    load(folder, dataset_root)
    convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / "merged", format="policy"))


def change(folder: str, names: str) -> None:
    """Train a checkpoint on in place."""
    file = Path(folder) / "model.safetensors"
    weights = load_file(file)
    save_file({n: w + 0.1 if n.startswith(names) else w for n, w in weights.items()}, file)


def test_an_adapter_whose_base_has_other_weights_is_refused(based, dataset_root, tmp_path):
    base, folder = based
    whole = ConvertConfig(SourceCheckpoint(folder), tmp_path / "merged", format="policy")
    load(folder, dataset_root)
    convert(whole)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["built"]["base_fingerprint"] == ""

    change(base, "backbone.model.language_model")
    message = f"{base} has other weights than those that the adapter {folder} was trained on"
    with pytest.raises(ValueError, match=message):
        load(folder, dataset_root)
    with pytest.raises(ValueError, match=message):
        convert(whole)
    acting = PreTrainedConfig.from_pretrained(folder)
    acting.pretrained_path = folder
    with pytest.raises(ValueError, match=message):
        GemVLAPolicy.from_pretrained(base, config=acting, revision=None)
    # As an adapter that was written before there were fingerprints.
    config = json.loads((Path(folder) / "config.json").read_text())
    del config["built"]["base_fingerprint"]
    (Path(folder) / "config.json").write_text(json.dumps(config))
    load(folder, dataset_root)
    convert(whole)


def test_an_adapter_of_a_revision_is_loaded_and_merged_with_it(
    make_policy,
    gem_checkpoint,  # noqa: F811
    dataset_root,
    tmp_path,
    monkeypatch,
):
    """Of a Hub repository in the cache whose main branch has moved on since."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--me--policy"
    (repository / "refs").mkdir(parents=True)
    of_tag, of_main = (str(repository / "snapshots" / (digit * 40)) for digit in "12")
    processors = make_policy(backbone=BackboneConfig(pretrained=gem_checkpoint))
    for name, folder in (("v1", of_tag), ("main", of_main)):
        save(Path(folder), *processors)
        (repository / "refs" / name).write_text(Path(folder).name)
    change(of_main, "backbone.model.language_model")

    policy, *processors = load(of_tag, dataset_root)
    policy.config.pretrained_path, policy.config.pretrained_revision = "me/policy", "v1"
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    folder = save_adapter(tmp_path / "adapter", adapted, *processors)
    loaded, *_ = load(folder, dataset_root)
    assert (
        loaded.config.pretrained_revision is None
    )  # which LeRobot would look for in the adapter's repository
    for name, weight in loaded.state_dict().items():
        if "original_module" not in name:
            assert weight.equal(adapted.state_dict()[name]), name
    whole = ConvertConfig(SourceCheckpoint(folder), tmp_path / "merged", format="policy")
    convert(whole)

    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    assert config["revision"] == "v1"
    (Path(folder) / "adapter_config.json").write_text(json.dumps(config | {"revision": None}))
    for read in (lambda: load(folder, dataset_root), lambda: convert(whole)):
        with pytest.raises(ValueError, match="me/policy has other weights"):
            read()


@pytest.mark.parametrize("stage", ["connector", "generator", "joint"])
def test_adapters_of_pretraining_load_and_are_named_as_a_backbone(
    stage,
    make_gem,
    make_policy,
    gem_checkpoint,  # noqa: F811
    depth_dataset_root,
    tmp_path,
):
    policy, *processors = make_gem(stage=stage, backbone=BackboneConfig(pretrained=gem_checkpoint))
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    policy.config.built.steps_done = 5
    folder = save_adapter(tmp_path / "adapter", adapted, *processors)
    loaded, *_ = load(folder, depth_dataset_root)
    for name, weight in loaded.state_dict().items():
        if "original_module" not in name:
            assert weight.equal(adapted.state_dict()[name]), name
    assert loaded.config.built.stages_done == policy.config.built.stages_done
    assert loaded.config.built.steps_done == 5

    acting, *_ = make_policy(
        depth_dataset_root, backbone=BackboneConfig(pretrained=folder), depth=DepthConfig(loss_weight=0.1)
    )
    merged = adapted.merge_and_unload().state_dict()
    for name, weight in acting.state_dict().items():
        if not name.startswith("expert."):
            torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-6)
    assert acting.config.sources.stages_done == policy.config.built.stages_done
    convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / "gem", format="policy"))
    assert GemPolicy.from_pretrained(tmp_path / "gem").config.use_peft is False


def test_the_next_stage_needs_the_whole_policy(make_gem, gem_checkpoint, depth_dataset_root, tmp_path):  # noqa: F811
    policy, *processors = make_gem(stage="generator", backbone=BackboneConfig(pretrained=gem_checkpoint))
    folder = save_adapter(tmp_path / "a", policy.wrap_with_peft(peft_cli_overrides=LORA), *processors)
    with pytest.raises(ValueError, match=r"an adapter of another stage.*lerobot-gem-convert"):
        load(folder, depth_dataset_root, stage="joint")
