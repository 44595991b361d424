import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from lerobot_gem.models.action_expert_layers import Attention, ExpertBlock, KeyValue, RMSNorm, TimeEmbedding
from lerobot_gem.models.presets import ExpertArchitecture

ARCHITECTURE = ExpertArchitecture(hidden_size=32, depth=1, num_heads=4, num_kv_heads=2, multiple_of=32)
B, L, T, WIDTH = 2, 6, 5, 32


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_norm_scales_after_casting_back_and_uses_its_epsilon():
    norm = RMSNorm(8, eps=0.25).bfloat16()
    nn.init.normal_(norm.weight)
    x = torch.randn(16, 8).bfloat16()
    wide = x.float()
    normalised = wide / (wide.square().mean(-1, keepdim=True) + 0.25).sqrt()
    assert torch.equal(norm(x), normalised.bfloat16() * norm.weight)


def test_times_keep_their_shape_and_are_told_apart():
    embedding = TimeEmbedding(WIDTH)
    times = torch.rand(3, 2)
    embedded = embedding(times)
    assert embedded.shape == (3, 2, WIDTH)
    torch.testing.assert_close(embedded[1, 1], embedding(times[1, 1:])[0])
    assert not torch.allclose(embedded[0, 0], embedded[0, 1])


def test_repeated_heads_attend_like_grouped_ones():
    attention = Attention(ARCHITECTURE)
    tokens, conditioning = torch.randn(B, T, WIDTH), torch.randn(B, L, WIDTH)
    mask = torch.ones(B, 1, 1, L, dtype=torch.bool)
    mask[0, ..., :2] = False
    grouped = attention.keys_values(conditioning)
    repeated = grouped.repeat(2, dim=1)
    assert grouped.key.shape == (B, 2, L, 8)
    assert repeated.key.shape == repeated.value.shape == (B, 4, L, 8)
    torch.testing.assert_close(attention(tokens, repeated, mask), attention(tokens, grouped, mask))


def test_a_mask_never_meets_grouped_heads(monkeypatch):
    """Torch has no fast kernel on CUDA for the two together."""
    calls: list[tuple[bool, bool]] = []
    attend = F.scaled_dot_product_attention

    def spy(*args, attn_mask, enable_gqa):
        calls.append((attn_mask is not None, enable_gqa))
        return attend(*args, attn_mask=attn_mask, enable_gqa=enable_gqa)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    block = ExpertBlock(ARCHITECTURE)
    key_value = block(conditioning=torch.randn(B, L, WIDTH))
    mask = torch.ones(B, 1, 1, L, dtype=torch.bool)
    block(torch.randn(B, T, WIDTH), torch.randn(B, 9 * WIDTH), key_value, mask)
    assert calls == [(False, True), (True, False)]


def test_closed_gates_leave_the_tokens_alone():
    block = ExpertBlock(ARCHITECTURE)
    tokens = torch.randn(B, T, WIDTH)
    key_value = block(conditioning=torch.randn(B, L, WIDTH))
    modulation = torch.randn(B, 3, 3, WIDTH)
    modulation[:, :, 2] = 0
    assert torch.equal(block(tokens, modulation.flatten(1), key_value, None), tokens)
    modulation[:, 1, 2] = 1
    assert not torch.allclose(block(tokens, modulation.flatten(1), key_value, None), tokens)


def test_repeating_once_copies_nothing():
    key_value = KeyValue(torch.randn(B, 2, L, 8), torch.randn(B, 2, L, 8))
    assert key_value.repeat(1, dim=1) is key_value
