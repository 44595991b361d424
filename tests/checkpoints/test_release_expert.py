import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lerobot_gem.checkpoints.files import stored_weights
from lerobot_gem.checkpoints.release_expert import expert_from_release, expert_to_release
from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.presets import ExpertArchitecture, get_preset

# Names and shapes of the released expert; no weights.
RELEASED_SHAPES = json.loads(
    (Path(__file__).parents[1] / "reference" / "rdt_demo_state_dict.json").read_text()
)


def small_expert(*, state_dim: int | None = 5) -> ActionExpert:
    torch.manual_seed(0)
    architecture = ExpertArchitecture(hidden_size=16, depth=2, num_heads=4, num_kv_heads=2, multiple_of=16)
    expert = ActionExpert(architecture, conditioning_dim=12, action_dim=3, state_dim=state_dim, chunk_size=4)
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter)
    return expert


@pytest.fixture
def released() -> dict[str, Tensor]:
    return expert_to_release(small_expert().state_dict())


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


def test_released_expert_is_the_2b_preset():
    """All 296 tensors find their place in the expert of the release's demo configuration, and no place stays empty."""
    with torch.device("meta"):
        expert = ActionExpert(
            get_preset("2b").expert, conditioning_dim=2048, action_dim=14, state_dim=14, chunk_size=32
        )
        released = {name: torch.empty(shape) for name, shape in RELEASED_SHAPES["tensors"].items()}
    assert len(released) == RELEASED_SHAPES["n_tensors"] == 296
    assert sum(weight.numel() for weight in expert.parameters()) == RELEASED_SHAPES["n_params"]
    expert.load_state_dict(expert_from_release(released), assign=True)
    back = expert_to_release(expert.state_dict())
    assert {name: list(weight.shape) for name, weight in back.items()} == RELEASED_SHAPES["tensors"]


def test_round_trips_are_exact(released):
    ours = small_expert().state_dict()
    assert_equal(expert_from_release(released), ours)
    assert_equal(expert_to_release(expert_from_release(released)), released)


def test_keys_and_values_are_interleaved_row_by_row(released):
    ours = expert_from_release(released)
    interleaved = released["model.blocks.1.cross_attn.wkv.weight"]
    assert torch.equal(ours["blocks.1.cross_attention.key.weight"], interleaved[0::2])
    assert torch.equal(ours["blocks.1.cross_attention.value.weight"], interleaved[1::2])


def test_expert_without_state_input_round_trips():
    ours = small_expert(state_dim=None).state_dict()
    released = expert_to_release(ours)
    assert not any(name.startswith("state_adaptor") for name in released)
    assert_equal(expert_from_release(released), ours)


def test_every_missing_weight_is_named(released):
    for name in released:
        with pytest.raises(ValueError, match=f"missing {name.replace('.', '[.]')}; unexpected none"):
            expert_from_release({other: weight for other, weight in released.items() if other != name})


def test_every_missing_weight_of_ours_is_named():
    ours = small_expert().state_dict()
    for name in ours:
        with pytest.raises(ValueError, match=f"missing {name.replace('.', '[.]')}; unexpected none"):
            expert_to_release({other: weight for other, weight in ours.items() if other != name})


@pytest.mark.parametrize("name", ["model.blocks.0.attn.wq.bias", "optimizer", "model.lang_pos_emb"])
def test_unexpected_weight_is_named(released, name):
    with pytest.raises(ValueError, match=f"missing none; unexpected {name}"):
        expert_from_release(released | {name: torch.ones(1)})


def test_missing_block_is_named(released):
    rest = {name: weight for name, weight in released.items() if not name.startswith("model.blocks.0.")}
    with pytest.raises(ValueError, match=r"missing model\.blocks\.0\.adaLN_modulation\.1\.bias"):
        expert_from_release(rest)


def test_wrong_shapes_are_named(released):
    odd = released | {"model.blocks.0.attn.wkv.weight": torch.ones(3, 16)}
    with pytest.raises(ValueError, match=r"model\.blocks\.0\.attn\.wkv\.weight has 3 rows"):
        expert_from_release(odd)
    other = expert_from_release(released | {"model.final_layer.ffn.fc2.bias": torch.ones(4)})
    with pytest.raises(RuntimeError, match=r"size mismatch for output\.velocity\.bias"):
        small_expert().load_state_dict(other)


def test_weights_on_disk_are_converted_without_reading_them(tmp_path, released):
    save_file(released, tmp_path / "model.safetensors")
    stored = expert_from_release(stored_weights(tmp_path))
    assert_equal({name: tensor.read() for name, tensor in stored.items()}, small_expert().state_dict())
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        name: tuple(tensor.shape) for name, tensor in small_expert().state_dict().items()
    }
