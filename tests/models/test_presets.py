import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLModel

from lerobot_gem.models.presets import PRESETS, ExpertArchitecture, get_preset


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build_without_memory(name: str) -> Qwen3VLModel:
    with torch.device("meta"):
        return Qwen3VLModel(Qwen3VLConfig(**get_preset(name).backbone))


def test_2b_is_qwen3_vl_2b():
    """Against the release's parameter counts: 2,127.5 M, of them 406.9 M in the vision tower."""
    model = build_without_memory("2b")
    assert count_parameters(model) == pytest.approx(2_127.5e6, abs=0.05e6)
    assert count_parameters(model.visual) == pytest.approx(406.9e6, abs=0.1e6)


def test_8b_is_qwen3_vl_8b():
    """Against the model card's 8.77 B, which counts the untied language head."""
    model = build_without_memory("8b")
    language_head = model.get_input_embeddings().weight.numel()
    assert count_parameters(model) + language_head == pytest.approx(8.77e9, abs=0.005e9)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_consistent(name):
    preset = get_preset(name)
    config = Qwen3VLConfig(**preset.backbone)
    text, vision = config.text_config, config.vision_config
    assert sum(text.rope_parameters["mrope_section"]) == text.head_dim // 2
    assert vision.out_hidden_size == text.hidden_size
    assert max(vision.deepstack_visual_indexes) < vision.depth
    assert int(vision.num_position_embeddings**0.5) ** 2 == vision.num_position_embeddings
    # Block i reads state i, and a backbone of n layers has states 0 to n.
    assert preset.expert.depth <= text.num_hidden_layers + 1


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="'4b'.*'tiny', '2b', '8b'"):
        get_preset("4b")


def test_feed_forward_size_follows_the_release():
    released = get_preset("2b").expert
    assert released.feed_forward_size == 2816
    scaled = ExpertArchitecture(1024, 1, 8, 4, multiple_of=32, ffn_dim_multiplier=1.3)
    assert scaled.feed_forward_size == 32 * -(-int(1.3 * 2730) // 32)


@pytest.mark.parametrize(("heads", "kv_heads"), [(5, 5), (8, 3)])
def test_heads_must_divide(heads, kv_heads):
    with pytest.raises(ValueError, match="must be a multiple of"):
        ExpertArchitecture(hidden_size=64, depth=1, num_heads=heads, num_kv_heads=kv_heads)


@pytest.mark.parametrize(
    "sizes", [{"num_heads": 0}, {"depth": "8"}, {"hidden_size": -8}, {"num_register_tokens": -1}]
)
def test_sizes_are_whole_numbers(sizes):
    [(name, value)] = sizes.items()
    with pytest.raises(ValueError, match=f"{name}={value!r} of the action expert: expected a whole number"):
        ExpertArchitecture(**{"hidden_size": 64, "depth": 1, "num_heads": 8, "num_kv_heads": 4} | sizes)
