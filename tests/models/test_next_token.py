"""Cross-entropy at labelled tokens, against transformers' own."""

import pytest
import torch

from lerobot_gem.models.next_token import next_token_losses
from tests.models.small_backbone import prompts, small_backbone


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "head of its own"])
def test_the_loss_of_one_sample_is_transformers_own(tied: bool):
    backbone = small_backbone(tied=tied)
    inputs = prompts(backbone, 9)
    labels = torch.full_like(inputs.tokens, -100)
    labels[:, -5:] = inputs.tokens[:, -5:]
    states = backbone.final_states(*inputs)
    ours = next_token_losses(backbone, states, labels, ignored=-100)
    expected = backbone.for_generation()(
        input_ids=inputs.tokens,
        attention_mask=inputs.mask,
        pixel_values=inputs.pixel_values,
        image_grid_thw=inputs.image_grid_thw,
        mm_token_type_ids=(inputs.tokens == backbone.image_token_id).int(),
        labels=labels,
    )
    assert ours.losses.shape == (5,)
    torch.testing.assert_close(ours.losses.mean(), expected.loss, rtol=1e-6, atol=1e-6)


def test_each_token_is_counted_for_its_prompt():
    backbone = small_backbone()
    inputs = prompts(backbone, 9, 4)
    labels = torch.full_like(inputs.tokens, -100)
    labels[0, -3:] = inputs.tokens[0, -3:]
    labels[1, -1] = inputs.tokens[1, -1]
    states = backbone.final_states(*inputs)
    losses = next_token_losses(backbone, states, labels, ignored=-100)
    assert losses.rows.tolist() == [0, 0, 0, 1]
    likeliest = backbone.logits(states[1, -2]).argmax()
    labels[1, -1] = likeliest
    again = next_token_losses(backbone, states, labels, ignored=-100)
    assert again.right[-1] == 1 and again.losses[:3].equal(losses.losses[:3])


def test_nothing_labelled_costs_nothing():
    backbone = small_backbone()
    inputs = prompts(backbone, 3)
    states = backbone.final_states(*inputs)
    losses = next_token_losses(backbone, states, torch.full_like(inputs.tokens, -100), ignored=-100)
    assert losses.losses.shape == losses.right.shape == (0,)
