"""Merged weights are PEFT's own, and an adapter that can't be merged says why."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from lerobot_gem.checkpoints.adapters import CONFIG_FILE, check_base, check_plain, is_adapter, merged
from lerobot_gem.checkpoints.files import fingerprint, stored_weights
from lerobot_gem.checkpoints.formats import read_json


class Model(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5, dtype=dtype)
        self.last = nn.Linear(5, 4, bias=False)


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def adapted(request, tmp_path: Path):
    """A model with an adapter that has learned something; both are saved."""
    torch.manual_seed(0)
    model = Model(request.param)
    (tmp_path / "base").mkdir()
    save_file(model.state_dict(), tmp_path / "base" / "model.safetensors")
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["first"], modules_to_save=["last"])
    peft = get_peft_model(model, config)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    peft.peft_config["default"].base_model_name_or_path = "base"
    peft.save_pretrained(tmp_path / "adapter")
    return peft, tmp_path


def test_merged_weights_are_those_that_peft_merges(adapted):
    peft, folder = adapted
    assert is_adapter(folder / "adapter") and not is_adapter(folder / "base")
    config = read_json(folder / "adapter" / CONFIG_FILE)
    check_plain(folder / "adapter", config)
    weights = merged(folder / "adapter", config, stored_weights(folder / "base"))
    expected = peft.merge_and_unload().state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        read = weight.read()
        assert (read.dtype, tuple(read.shape)) == (weight.dtype, weight.shape)
        assert weight[1:3].read().equal(read[1:3])
        tolerance = 2e-2 if expected[name].dtype == torch.bfloat16 else 1e-6  # PEFT merges in the base's type
        torch.testing.assert_close(read, expected[name].to(read.dtype), rtol=tolerance, atol=tolerance)
    assert weights["first.weight"].dtype == torch.float32


def test_a_merge_is_computed_in_the_wider_type(tmp_path: Path):
    torch.manual_seed(0)
    base, up, down = torch.randn(5, 6), torch.randn(5, 3).bfloat16(), torch.randn(3, 6).bfloat16()
    (tmp_path / "base").mkdir()
    save_file({"first.weight": base}, tmp_path / "base" / "model.safetensors")
    names = "base_model.model.first.lora_A.weight", "base_model.model.first.lora_B.weight"
    save_file(dict(zip(names, (down, up), strict=True)), tmp_path / "adapter_model.safetensors")
    weights = merged(tmp_path, {"r": 3, "lora_alpha": 6}, stored_weights(tmp_path / "base"))
    expected = base + 2 * (up.float() @ down.float())
    torch.testing.assert_close(weights["first.weight"].read(), expected, rtol=1e-6, atol=1e-6)


def test_another_base_is_named(adapted):
    _, folder = adapted
    config = read_json(folder / "adapter" / CONFIG_FILE)
    base = stored_weights(folder / "base")
    del base["first.weight"]
    with pytest.raises(ValueError, match=r"does not fit 'base', which it names as its base: first"):
        merged(folder / "adapter", config, base)
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    weights = {name: weight for name, weight in weights.items() if "lora_A" not in name}
    save_file(weights, folder / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"first\.lora_B"):
        merged(folder / "adapter", config, stored_weights(folder / "base"))


def test_a_base_with_other_weights_is_refused(adapted):
    _, folder = adapted
    base = stored_weights(folder / "base")
    recorded = fingerprint(base)
    check_base(folder / "adapter", recorded, "base", base)
    weights = load_file(folder / "base" / "model.safetensors")
    save_file(weights | {"last.weight": weights["last.weight"] + 1}, folder / "base" / "model.safetensors")
    message = rf"base has other weights .*the adapter .* was trained on .*expected {recorded[:12]}.*Put the base back"
    with pytest.raises(ValueError, match=message):
        check_base(folder / "adapter", recorded, "base", base)
    check_base(folder / "adapter", "", "base", base)  # of an adapter that was written before


@pytest.mark.parametrize(
    ("layer", "target"),
    [(nn.Embedding(6, 5), "embed"), (nn.Conv2d(3, 4, 2), "embed")],
    ids=["embedding", "conv"],
)
def test_what_is_not_linear_is_named(layer, target, tmp_path: Path):
    peft = get_peft_model(nn.ModuleDict({target: layer}), LoraConfig(r=2, target_modules=[target]))
    peft.save_pretrained(tmp_path / "adapter")
    save_file(nn.ModuleDict({target: layer}).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="adapts embeddings or convolutions, embed, which can't be merged"):
        merged(tmp_path / "adapter", {"r": 2, "lora_alpha": 8}, stored_weights(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_dora": True}, "plain LoRA"),
        ({"peft_type": "MISS"}, "plain LoRA"),
        ({"init_lora_weights": "pissa"}, "'init_lora_weights': 'pissa'.* can't be merged here"),
        ({"base_model_name_or_path": None}, "adapter_config.json names no base"),
        ({"base_model_name_or_path": 7}, "adapter_config.json names no base"),
        ({"r": "x"}, r"adapter_config.json asks for rank x \(r\): expected a whole number"),
        ({"lora_alpha": None}, "adapter_config.json has lora_alpha=None: expected a number"),
    ],
)
def test_what_cannot_be_merged_is_an_error(changed, message, tmp_path: Path):
    config = json.loads(json.dumps(LoraConfig(base_model_name_or_path="base").to_dict(), default=str))
    with pytest.raises(ValueError, match=message):
        check_plain(tmp_path, config | {"peft_type": "LORA"} | changed)
