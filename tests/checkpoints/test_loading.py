"""The backbone of a checkpoint: every weight in its place, whatever the format, or an error that names it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLForConditionalGeneration

from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.checkpoints.release_expert import expert_to_release
from tests.checkpoints.conftest import contents, edit_weights
from tests.checkpoints.test_release_expert import small_expert
from tests.models.test_backbone import make_inputs, small_config


@pytest.fixture
def checkpoint(tmp_path):
    """A folder as `save_pretrained` of plain Qwen3-VL writes it, language head included."""
    torch.manual_seed(2)
    config = small_config()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    Qwen3VLForConditionalGeneration(config).save_pretrained(tmp_path)
    assert "lm_head.weight" in load_file(tmp_path / "model.safetensors")
    return tmp_path


def test_plain_qwen_checkpoint_loads_exactly(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["lm_head.weight"]
    loaded = load_backbone(open_checkpoint(checkpoint)).state_dict()
    assert loaded.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(loaded[name], weight), name


def test_truncated_load_holds_no_memory_for_the_rest(checkpoint):
    backbone = load_backbone(open_checkpoint(checkpoint), num_layers=1, dtype=torch.bfloat16)
    assert backbone.num_layers == 1
    assert backbone.config.text_config.num_hidden_layers == 4
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    assert {parameter.device.type for parameter in backbone.parameters()} == {"cpu"}
    with pytest.raises(ValueError, match="Layer 2 .* from 0 to 1"):
        backbone(*make_inputs(), layers=[2])


KEY = "model.language_model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop(KEY), r"missing: .*layers\.1\.mlp\.up_proj\.weight"),
        (lambda w: w.update({"model.visual.extra": torch.ones(1)}), "unexpected: .*visual.extra"),
        (lambda w: w.update({f"{KEY}_scale": torch.ones(1)}), r"unexpected: .*up_proj\.weight_scale"),
        (lambda w: w.update({"sanaa.weight": torch.ones(1)}), r"unexpected: .*sanaa\.weight"),
        (
            lambda w: w.update({KEY: torch.ones(3, 2)}),
            r"shape of .*up_proj\.weight: \(3, 2\) in the file, \(256, 128\) expected",
        ),
    ],
    ids=["missing", "unexpected", "unexpected in a kept layer", "other part", "mis-shaped"],
)
def test_weights_that_do_not_fit_are_named(checkpoint, edit, message):
    edit_weights(checkpoint, edit)
    with pytest.raises(ValueError, match=message):
        load_backbone(open_checkpoint(checkpoint))


def test_missing_weight_of_a_dropped_layer_is_no_error(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.pop(KEY))
    assert load_backbone(open_checkpoint(checkpoint), num_layers=1).num_layers == 1


def test_depth_generator_of_gem_is_skipped_by_name(checkpoint):
    parts = {f"{part}.weight": torch.ones(1) for part in ("sana", "vae", "diffusion_connector.0")}
    edit_weights(checkpoint, lambda weights: weights.update(parts))
    load_backbone(open_checkpoint(checkpoint))


def test_checkpoint_cut_short(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="can't be read"):
        load_backbone(open_checkpoint(checkpoint))


def test_checkpoint_of_another_model(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "qwen2_vl"}))
    with pytest.raises(ValueError, match="'qwen2_vl' checkpoint; the backbone needs 'qwen3_vl'"):
        load_backbone(open_checkpoint(checkpoint))


def test_folder_without_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="No weights: none of"):
        load_backbone(open_checkpoint(checkpoint))


def test_backbone_of_a_policy_is_read_without_its_other_parts(make_policy, tmp_path):
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path)
    backbone = load_backbone(open_checkpoint(tmp_path), num_layers=policy.backbone.num_layers)
    assert contents(backbone.state_dict()) == contents(policy.backbone.state_dict())


def test_checkpoint_without_backbone(tmp_path):
    save_file(expert_to_release(small_expert().state_dict()), tmp_path / "rdt.safetensors")
    with pytest.raises(ValueError, match="has no backbone: as a 'rdt' checkpoint it holds expert"):
        load_backbone(open_checkpoint(tmp_path / "rdt.safetensors"))
