"""Acting in 8 bits: close to what it stands for, and one error for what can't be quantised."""

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from torch import nn

from lerobot_gem.inference.quantization import Int8Linear, check_quantizable, quantize
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.inference.test_acting import NOISE, observe
from tests.policies.gem.test_modeling_gem import warm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_close_to_the_one_it_stands_for(dtype):
    torch.manual_seed(0)
    layer = nn.Linear(96, 40)
    read = torch.randn(3, 5, 96, dtype=dtype)
    given, expected = Int8Linear(layer)(read), layer(read.float())
    assert given.dtype == dtype and given.shape == expected.shape
    assert (given.float() - expected).norm() < 0.03 * expected.norm()


def test_rows_have_scales_of_their_own():
    layer = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        layer.weight[1] *= 1e-4
    read = torch.randn(8, 64)
    given, expected = Int8Linear(layer)(read), layer(read)
    assert (given - expected)[:, 1].norm() < 0.03 * expected[:, 1].norm()


def test_the_engine_that_torch_uses_stays():
    before = torch.backends.quantized.engine
    Int8Linear(nn.Linear(8, 8))
    assert torch.backends.quantized.engine == before


def test_a_policy_acts_in_8_bits_nearly_as_it_does_without(make_policy, tmp_path):
    policy, preprocess, _ = make_policy(dtype="bfloat16")
    warm(policy).save_pretrained(tmp_path)
    plain = GemVLAPolicy.from_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.quantization = "int8"
    quantised = GemVLAPolicy.from_pretrained(tmp_path, config=config)
    towers = nn.ModuleList([quantised.backbone.vision_tower, quantised.backbone.language_model])
    assert not any(isinstance(layer, nn.Linear) for layer in towers.modules())
    assert any(isinstance(layer, Int8Linear) for layer in towers.modules())
    assert any(isinstance(layer, nn.Linear) for layer in quantised.expert.modules())
    batch = preprocess(observe())
    expected = plain.predict_action_chunk(batch, noise=NOISE) - NOISE
    difference = quantised.predict_action_chunk(batch, noise=NOISE) - NOISE - expected
    assert 0 < difference.norm() < 0.1 * expected.norm()
    with pytest.raises(ValueError, match="its weights are int8"):
        quantised.get_optim_params()
    with pytest.raises(ValueError, match="whose weights are made to act and not to be saved"):
        quantised.save_pretrained(tmp_path / "again")


def test_a_rollout_cannot_compile_a_policy_in_8_bits(make_policy, tmp_path):
    """lerobot-rollout --use_torch_compile=true sets compile_model in a configuration that was checked already."""
    make_policy()[0].save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.quantization, config.compile_model = "int8", True
    with pytest.raises(
        ValueError, match="with compile_model=true: expected one of them.*no --use_torch_compile"
    ):
        GemVLAPolicy.from_pretrained(tmp_path, config=config)


def test_training_is_not_quantised(make_policy, batch):
    policy, preprocess, _ = make_policy(quantization="int8")
    assert not any(isinstance(layer, Int8Linear) for layer in policy.modules())
    policy(preprocess(batch))[0].backward()


def test_what_cannot_be_quantised_is_one_error(monkeypatch):
    with pytest.raises(ValueError, match="on device='cuda': expected --policy.device=cpu"):
        check_quantizable("cuda", adapted=False)
    with pytest.raises(ValueError, match="with an adapter.*Merge it"):
        check_quantizable("cpu", adapted=True)
    monkeypatch.setattr("lerobot_gem.inference.quantization._ENGINE", "none yet")
    with pytest.raises(ValueError, match="has no oneDNN kernels"):
        check_quantizable("cpu", adapted=False)


def test_layers_that_cannot_be_quantised_are_named():
    broken = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.constant_(broken[1].weight, float("nan"))
    with pytest.raises(ValueError, match="quantization='int8': 1: weights that hold NaN"):
        quantize([broken])
    with pytest.raises(ValueError, match="found none to quantise"):
        quantize([nn.Sequential(nn.ReLU())])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"quantization": "int4"}, "quantization='int4' is unknown"),
        ({"quantization": "int8", "compile_model": True}, "with compile_model=true: expected one of them"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(overrides, message):
    with pytest.raises(Exception, match=message):
        GemVLAConfig(preset="tiny", **overrides)
