import pytest
import torch
from torch import nn

from lerobot_gem.models.precision import autocast_weights, is_token_table, token_tables


@pytest.fixture
def module() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "a": nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)),
            "b": nn.Embedding(4, 2),
            "c": nn.Conv3d(1, 1, 1),
            "d": nn.ModuleDict({"embed_tokens": nn.Embedding(4, 2), "pos_embed": nn.Embedding(4, 2)}),
        }
    )


def test_linear_layers_and_convolutions_are_cast_and_nothing_else(module):
    assert autocast_weights(module) == {"a.0.weight", "a.0.bias", "c.weight", "c.bias"}
    assert autocast_weights(nn.Linear(1, 1, bias=False)) == {"weight"}


def test_tables_of_tokens_are_told_from_those_of_positions(module):
    assert token_tables(module) == {"d.embed_tokens.weight"}
    assert is_token_table("embed_tokens", nn.Embedding(4, 2))
    assert not is_token_table("embed_tokens", nn.Linear(4, 2))


def test_what_is_cast_gives_the_same_numbers_stored_in_bfloat16():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(3, 8, 3), nn.Flatten(), nn.LayerNorm(8 * 14), nn.Linear(8 * 14, 4))
    x = torch.randn(2, 3, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = module(x)
        for name in autocast_weights(module):
            module.get_parameter(name).data = module.get_parameter(name).bfloat16()
        assert module(x).equal(expected)
