"""The keys and values that decoder layers give are those that transformers keeps, and cost no more than their projections."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3VLModel

from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.conditioning import KeyValue
from lerobot_gem.models.vision_tower import PatchEmbedding
from tests.models.test_backbone import count_calls, make_inputs, small_config

DEPTH = 4
PROJECTIONS = {"input_layernorm", "self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm"}


def make_backbone(num_layers: int | None = None, **options) -> GemBackbone:
    """Of the same weights, however many layers are kept."""
    torch.manual_seed(0)
    whole = GemBackbone(small_config())
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    backbone = GemBackbone(small_config(), num_layers=num_layers, **{"key_values": True} | options)
    weights = {
        name: weight for name, weight in whole.state_dict().items() if not backbone.has_no_place_for(name)
    }
    backbone.load_state_dict(weights)  # strict: nothing is missing, nothing too much
    return backbone.eval()


def split(read: Tensor) -> KeyValue:
    return KeyValue.from_side_by_side(read, small_config().get_text_config().head_dim)


@pytest.mark.parametrize("num_layers", [None, DEPTH - 1], ids=["whole", "cut"])
@pytest.mark.parametrize("padding", [0, 3])
def test_they_are_those_in_transformers_cache(num_layers, padding):
    backbone = make_backbone(num_layers)
    inputs = make_inputs(padding=padding)
    read = backbone(*inputs, layers=range(DEPTH), convention="key_values")
    reference = Qwen3VLModel(small_config()).eval()
    reference.load_state_dict(make_backbone().model.state_dict())
    # What is compared to the bit here are the layers: ours rounds patches otherwise (test_vision_tower.py says how much).
    reference.visual.patch_embed.__class__ = PatchEmbedding
    tokens, mask, pixels, grid = inputs
    with torch.no_grad():
        cache = reference(
            input_ids=tokens,
            attention_mask=mask,
            pixel_values=pixels,
            image_grid_thw=grid,
            mm_token_type_ids=(tokens == backbone.image_token_id).int(),
            use_cache=True,
        ).past_key_values
    real = mask.bool()[:, None, :, None]
    for index, kept in enumerate(cache.layers):
        given = split(read[:, index])
        assert given.key.shape == kept.keys.shape
        for ours, theirs in ((given.key, kept.keys), (given.value, kept.values)):
            assert ((ours - theirs) * real).abs().max() == 0


@pytest.mark.parametrize("last", range(DEPTH))
@pytest.mark.parametrize("is_cut", [False, True])
def test_of_the_last_layer_the_projections_run_alone(last, is_cut):
    backbone = make_backbone(last if is_cut else None)
    layers = backbone.model.language_model.layers
    assert len(layers) == (last + 1 if is_cut else DEPTH)
    assert backbone.num_layers == (last if is_cut else DEPTH)
    parts = {name: part for name, part in layers[last].named_modules() if not list(part.children())}
    assert (parts.keys() == PROJECTIONS) == is_cut
    of_part, of_layer = count_calls(list(parts.values())), count_calls([layer.self_attn for layer in layers])
    backbone(*make_inputs(), layers=[last], convention="key_values")
    assert {name for name, calls in zip(parts, of_part, strict=True) if calls} == PROJECTIONS
    assert of_layer == [1] * last + [0] * (len(layers) - last)


def test_final_states_come_along_and_nothing_is_projected_twice():
    backbone = make_backbone(language_head=True)
    keys = count_calls([layer.self_attn.k_proj for layer in backbone.model.language_model.layers])
    inputs = make_inputs(padding=2)
    read, final = backbone.forward_with_final(*inputs, layers=[2, 0], convention="key_values")
    assert keys == [1] * DEPTH
    assert final.equal(make_backbone(key_values=False).final_states(*inputs))
    assert read.equal(backbone(*inputs, layers=[2, 0], convention="key_values"))


def test_states_are_those_of_a_backbone_without():
    inputs = make_inputs(padding=2)
    expected = make_backbone(key_values=False)(*inputs, layers=range(3))
    assert make_backbone(2)(*inputs, layers=range(3)).equal(expected)


def test_checkpointed_layers_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        backbone = make_backbone(2).train()
        if recompute:
            backbone.gradient_checkpointing_enable()
        backbone(*make_inputs(padding=2), layers=range(3), convention="key_values").square().sum().backward()
        gradients.append({name: weight.grad for name, weight in backbone.named_parameters()})
    once, twice = gradients
    assert not [name for name, gradient in once.items() if gradient is None]  # all that is kept takes part
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], gradient, msg=name)


def test_side_by_side_and_back():
    given = KeyValue(torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4))
    laid = given.side_by_side()
    assert laid.shape == (2, 5, 24)
    assert laid[1, 2, 4:8].equal(given.key[1, 1, 2]) and laid[1, 2, 12:16].equal(given.value[1, 0, 2])
    for ours, theirs in zip(KeyValue.from_side_by_side(laid, 4), given, strict=True):
        assert ours.equal(theirs)


def test_weights_of_the_cut_layer_have_a_place_and_no_others():
    backbone = make_backbone(1)
    layer = "model.language_model.layers"
    assert not backbone.has_no_place_for(f"{layer}.0.mlp.up_proj.weight")
    assert not backbone.has_no_place_for(f"{layer}.1.self_attn.k_proj.weight")
    assert backbone.has_no_place_for(f"{layer}.1.self_attn.q_proj.weight")
    assert backbone.has_no_place_for(f"{layer}.2.self_attn.k_proj.weight")
    assert not backbone.is_complete and isinstance(backbone.model.language_model.norm, nn.Identity)


def test_copies_stay_cut():
    backbone = copy.deepcopy(make_backbone(0))
    assert backbone.num_layers == 0
    assert backbone(*make_inputs(), layers=[0, 0], convention="key_values").shape[1] == 2


@pytest.mark.parametrize(
    ("num_layers", "layers", "options", "message"),
    [
        (
            4,
            [0],
            {},
            "num_layers=4 must be between 0 and 3, since the next of the backbone's 4 decoder layers",
        ),
        (2, [3], {}, "Layer 3 is past this backbone of 2 decoder layers; ask for layers from 0 to 2"),
        (None, [4], {}, "Layer 4 is past this backbone of 4 decoder layers; ask for layers from 0 to 3"),
        (2, [1], {"key_values": False}, "built to give states alone; build it with key_values=True"),
    ],
)
def test_what_it_can_not_give(num_layers, layers, options, message):
    with pytest.raises(ValueError, match=message):
        make_backbone(num_layers, **options)(*make_inputs(), layers=layers, convention="key_values")
