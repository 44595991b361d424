import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.presets import get_preset

CONVENTIONS = {"layer_inputs": "hidden_states_tf4573", "hidden_states": "hidden_states"}


# --- parity with transformers 4.57.3 and 5 on the official checkpoint format -----------------------------------


@pytest.fixture
def released(gem_checkpoint, reference_folder) -> GemBackbone:
    return load_backbone(open_checkpoint(reference_folder / gem_checkpoint.spec["checkpoint_dir"])).eval()


def golden_inputs(golden, batch: str = "") -> tuple[Tensor, ...]:
    names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
    return tuple(golden[f"in.{batch}{name}"] for name in names)


@pytest.mark.parity
@pytest.mark.parametrize("batch", ["", "b2."], ids=["one row", "left padded"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_states_match(gem_checkpoint, released, batch, convention):
    inputs = golden_inputs(gem_checkpoint, batch)
    expected = gem_checkpoint[f"out.{batch}{CONVENTIONS[convention]}"]
    states = released(*inputs, layers=range(expected.shape[1]), convention=convention)
    # Padded positions mean nothing, here as there.
    real = inputs[1].bool()[:, None, :, None]
    gem_checkpoint.check(f"out.{batch}{CONVENTIONS[convention]}", torch.where(real, states, expected))


@pytest.mark.parity
@pytest.mark.parametrize("batch", ["", "b2."], ids=["one row", "left padded"])
def test_positions_match(gem_checkpoint, released, batch):
    inputs = golden_inputs(gem_checkpoint, batch)
    seen: list[Tensor] = []
    rotary = released.model.language_model.rotary_emb
    rotary.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    released(*inputs, layers=[1])
    expected = gem_checkpoint[f"out.{batch}position_ids"]
    real = inputs[1].bool()[None]
    gem_checkpoint.check(f"out.{batch}position_ids", torch.where(real, seen[0], expected))


@pytest.mark.parity
def test_last_hidden_state_matches(gem_checkpoint, released):
    inputs = golden_inputs(gem_checkpoint, "")
    states = released(*inputs, layers=[released.num_layers], convention="hidden_states")
    gem_checkpoint.check("out.last_hidden_state", states[:, 0])


@pytest.mark.parity
def test_conventions_differ_by_the_deep_stack_features(gem_checkpoint, released):
    inputs = golden_inputs(gem_checkpoint, "")
    # The last state differs by the final norm too.
    features = sorted(name for name in gem_checkpoint.tensors if name.startswith("out.deepstack."))
    features = features[: released.num_layers - 1]
    layers = range(1, len(features) + 1)
    difference = released(*inputs, layers=layers) - released(
        *inputs, layers=layers, convention="hidden_states"
    )
    image = inputs[0] == released.image_token_id
    for index, name in enumerate(features):
        gem_checkpoint.check(name, difference[:, index][image])
        assert difference[:, index][~image].abs().max() == 0


@pytest.mark.parity
def test_image_features_stand_at_the_image_tokens(gem_checkpoint, released):
    inputs = golden_inputs(gem_checkpoint, "")
    embeddings = released(*inputs, layers=[0])[:, 0]
    gem_checkpoint.check("out.image_embeds", embeddings[inputs[0] == released.image_token_id])


@pytest.mark.parity
def test_truncated_checkpoint_gives_the_same_states(gem_checkpoint, reference_folder, released):
    inputs = golden_inputs(gem_checkpoint, "b2.")
    folder = reference_folder / gem_checkpoint.spec["checkpoint_dir"]
    for depth in {1, released.num_layers - 1}:
        truncated = load_backbone(open_checkpoint(folder), num_layers=depth).eval()
        for convention in CONVENTIONS:
            request = {"layers": range(depth + 1), "convention": convention}
            assert torch.equal(truncated(*inputs, **request), released(*inputs, **request))


# --- behaviour ------------------------------------------------------------------------------------------------


def small_config() -> Qwen3VLConfig:
    """The tiny preset with two images' worth of patches and a deeper decoder than it has deep-stack features."""
    values = copy.deepcopy(get_preset("tiny").backbone)
    values["text_config"] |= {"num_hidden_layers": 4, "vocab_size": 64}
    values["vision_config"] |= {"depth": 2, "deepstack_visual_indexes": [0, 1]}
    return Qwen3VLConfig(**values)


def make_backbone(*, num_layers: int | None = None) -> GemBackbone:
    torch.manual_seed(0)
    return GemBackbone(small_config(), num_layers=num_layers).eval()


def make_inputs(*, padding: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two rows of two images each, of 2 x 2 and 2 x 4 patches; the first row padded on the left by `padding`."""
    generator = torch.Generator().manual_seed(1)
    image, wide_image = [1, 3, 2], [1, 3, 3, 2]
    row = [10, *image, 11, *wide_image, 12, 13]
    longer = [*range(20, 20 + padding), *row]
    input_ids = torch.tensor([[0] * padding + row, longer])
    mask = torch.ones_like(input_ids)
    mask[0, :padding] = 0
    vision = small_config().vision_config
    patch_dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(2 * (4 + 8), patch_dim, generator=generator)
    return input_ids, mask, pixels, torch.tensor([[1, 2, 2], [1, 2, 4]] * 2)


def count_calls(modules: list[nn.Module]) -> list[int]:
    """Calls of each module from now on, in a list that fills as they happen."""
    calls = [0] * len(modules)

    def count(index: int):
        def hook(*_):
            calls[index] += 1

        return hook

    for index, module in enumerate(modules):
        module.register_forward_hook(count(index))
    return calls


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("last", range(5))
def test_nothing_runs_beyond_the_last_state(last, convention):
    backbone = make_backbone()
    language = backbone.model.language_model
    calls = count_calls([*language.layers, language.norm, backbone.model.visual])
    backbone(*make_inputs(), layers=[0, last], convention=convention)
    normed = last == 4 and convention == "hidden_states"
    assert calls == [1] * last + [0] * (4 - last) + [int(normed), 1]


def test_states_come_in_the_order_asked_for():
    backbone, inputs = make_backbone(), make_inputs()
    states = backbone(*inputs, layers=range(5))
    assert states.shape == (2, 5, inputs[0].shape[1], backbone.hidden_size)
    assert torch.equal(backbone(*inputs, layers=[3, 0, 3]), states[:, [3, 0, 3]])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_truncated_backbone_gives_the_same_states(convention):
    full, truncated = make_backbone(), make_backbone(num_layers=2)
    kept = truncated.state_dict()
    assert "model.language_model.norm.weight" not in kept
    truncated.load_state_dict({name: weight for name, weight in full.state_dict().items() if name in kept})
    assert truncated.num_layers == 2
    request = {"layers": [0, 1, 2], "convention": convention}
    inputs = make_inputs(padding=2)
    assert torch.equal(truncated(*inputs, **request), full(*inputs, **request))


def test_deep_stack_features_may_reach_the_final_norm():
    """With as many features as layers, the last one is added after the last layer; against transformers' forward."""
    config = small_config()
    config.text_config.num_hidden_layers = len(config.vision_config.deepstack_visual_indexes)
    torch.manual_seed(0)
    backbone = GemBackbone(config).eval()
    ids, mask, pixels, grid = inputs = make_inputs()
    expected = backbone.model(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=pixels,
        image_grid_thw=grid,
        mm_token_type_ids=(ids == backbone.image_token_id).int(),
    ).last_hidden_state
    states = backbone(*inputs, layers=[backbone.num_layers], convention="hidden_states")
    assert torch.equal(states[:, 0], expected)


def test_left_padding_changes_nothing():
    backbone = make_backbone()
    padded = backbone(*make_inputs(padding=3), layers=range(5))[0, :, 3:]
    alone = backbone(*make_inputs(), layers=range(5))[0]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_rows_of_a_batch_do_not_mix():
    backbone = make_backbone()
    ids, mask, pixels, grid = make_inputs(padding=2)
    both = backbone(ids, mask, pixels, grid, layers=[4])
    second = backbone(ids[1:], mask[1:], pixels[12:], grid[2:], layers=[4])
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=1e-5)
    changed = pixels.clone()
    changed[12:] += 1
    other = backbone(ids, mask, changed, grid, layers=[4])
    assert torch.equal(other[0, :, 2:], both[0, :, 2:])
    assert not torch.allclose(other[1], both[1])


def test_gradient_checkpointing_recomputes_and_gives_the_same_gradients():
    gradients, calls = [], []
    for checkpointing in (False, True):
        backbone = make_backbone().train()
        if checkpointing:
            backbone.gradient_checkpointing_enable()
        attention = [
            backbone.model.language_model.layers[0].self_attn,
            backbone.model.visual.blocks[0].attn,
        ]
        counted = count_calls(attention)
        backbone(*make_inputs(padding=1), layers=[1, 3]).square().mean().backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters() if p.grad is not None})
        calls.append(counted)
    assert calls == [[1, 1], [2, 2]]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_every_weight_of_a_truncated_backbone_learns():
    backbone = make_backbone(num_layers=2).train()
    backbone(*make_inputs(), layers=[2]).square().mean().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"layers": [0, 5]}, "Layer 5 .* 4 decoder layers; ask for layers from 0 to 4"),
        ({"layers": [-1]}, "Layer -1"),
        ({"layers": []}, "No layer asked for"),
        ({"layers": [0], "convention": "outputs"}, "'outputs'.*'layer_inputs', 'hidden_states'"),
    ],
)
def test_bad_request_is_named(request_, message):
    with pytest.raises(ValueError, match=message):
        make_backbone()(*make_inputs(), **request_)


def test_image_tokens_must_match_the_image_features():
    ids, mask, pixels, grid = make_inputs()
    with pytest.raises(ValueError, match="do not match"):
        make_backbone()(ids, mask, pixels[:12], grid[:2], layers=[0])


@pytest.mark.parametrize("num_layers", [0, 5])
def test_depth_out_of_range(num_layers):
    with pytest.raises(ValueError, match=f"num_layers={num_layers} must be between 1 and the backbone's 4"):
        make_backbone(num_layers=num_layers)


# --- final states, language head, vision spans --------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("batch", ["", "b2."], ids=["one row", "left padded"])
def test_logits_match(gem_checkpoint, reference_folder, batch):
    folder = reference_folder / gem_checkpoint.spec["checkpoint_dir"]
    backbone = load_backbone(open_checkpoint(folder), language_head=True).eval()
    inputs = golden_inputs(gem_checkpoint, batch)
    expected = gem_checkpoint[f"out.{batch}logits"]
    logits = backbone.logits(backbone.final_states(*inputs))
    gem_checkpoint.check(f"out.{batch}logits", torch.where(inputs[1].bool()[..., None], logits, expected))


def test_one_pass_gives_the_states_of_layers_and_the_final_ones():
    backbone, inputs = make_backbone(), make_inputs(padding=3)
    calls = count_calls([*backbone.model.language_model.layers, backbone.model.visual])
    states, final = backbone.forward_with_final(*inputs, layers=[0, 2])
    assert calls == [1] * 5
    assert states.equal(backbone(*inputs, layers=[0, 2]))
    assert final.equal(backbone.final_states(*inputs))


@pytest.mark.parametrize("side", ["left", "right"])
def test_vision_spans_are_cut_out_in_order_wherever_the_padding_is(side):
    backbone = make_backbone()
    input_ids, *_ = make_inputs(padding=3)
    if side == "right":
        input_ids = torch.stack([input_ids[0].roll(-3), input_ids[1]])
    positions = torch.arange(input_ids.numel()).view(*input_ids.shape, 1).float()
    spans, mask = backbone.vision_spans(positions.requires_grad_(), input_ids)
    image_tokens = (input_ids == backbone.image_token_id).flatten().nonzero().flatten()
    assert mask.tolist() == [[True, False], [True, True]] * 2
    assert spans[..., 0][mask].tolist() == image_tokens.tolist()
    assert not spans[..., 0][~mask].any()
    spans.sum().backward()
    assert positions.grad.flatten().nonzero().flatten().tolist() == image_tokens.tolist()


@pytest.mark.parametrize("tied", [True, False])
def test_the_language_head_is_loaded_and_predicts_as_transformers_does(tmp_path, tied):
    config = small_config()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    torch.manual_seed(2)
    reference = Qwen3VLForConditionalGeneration(config).eval()
    reference.save_pretrained(tmp_path)
    backbone = load_backbone(open_checkpoint(tmp_path), language_head=True).eval()
    assert ("lm_head.weight" in backbone.state_dict()) != tied
    input_ids, mask, pixels, grid = make_inputs(padding=2)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": mask,
        "mm_token_type_ids": (input_ids == backbone.image_token_id).int(),
        "pixel_values": pixels,
        "image_grid_thw": grid,
    }
    expected = reference(**inputs).logits
    logits = backbone.logits(backbone.final_states(input_ids, mask, pixels, grid))
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()])
    torch.testing.assert_close(backbone.for_generation()(**inputs).logits, expected)


def test_what_needs_all_layers_or_a_head_says_so():
    config = small_config()
    config.tie_word_embeddings = False
    with pytest.raises(
        ValueError, match="Predictions of tokens need all 4 decoder layers; this backbone keeps 2"
    ):
        GemBackbone(config, num_layers=2, language_head=True)
    with pytest.raises(ValueError, match="Final states need all 4 decoder layers"):
        make_backbone(num_layers=2).final_states(*make_inputs())
    with pytest.raises(ValueError, match="built without a language head"):
        GemBackbone(config).logits(torch.zeros(1, config.text_config.hidden_size))
