"""Tokens written with kept keys and values are those of whole passes, in every batch, and always a whole chunk."""

import pytest
import torch

from lerobot_gem.inference.token_acting import ActionTokenWriter
from lerobot_gem.models.backbone import GemBackbone
from tests.models.small_backbone import prompts, small_backbone

PREFIX, FIRST_ROW = (5, 6, 600), 601
# Most tokens stand for one coefficient, some for up to 7.
LENGTHS = [1] * 20 + [2, 3, 4, 5, 6, 7] * 5
COEFFICIENTS = 24


def writer(backbone: GemBackbone) -> ActionTokenWriter:
    return ActionTokenWriter(backbone, PREFIX, FIRST_ROW, LENGTHS)


@pytest.fixture(scope="module", params=[True, False], ids=["tied head", "head of its own"])
def backbone(request) -> GemBackbone:
    return small_backbone(tied=request.param)


def test_kept_keys_and_values_write_what_one_teacher_forced_pass_would(backbone: GemBackbone):
    inputs = prompts(backbone, 7)
    [written] = writer(backbone).write(*inputs, coefficients=COEFFICIENTS)
    turn = [*PREFIX, *(FIRST_ROW + token for token in written)]
    tokens = torch.cat([inputs.tokens, torch.tensor([turn])], dim=1)
    states = backbone.final_states(
        tokens, torch.ones_like(tokens), inputs.pixel_values, inputs.image_grid_thw
    )
    logits = backbone.logits(states)[0, -len(written) - 1 : -1, FIRST_ROW : FIRST_ROW + len(LENGTHS)]
    lengths, left = torch.tensor(LENGTHS), COEFFICIENTS
    for token, row in zip(written, logits, strict=True):
        assert row.masked_fill(lengths > left, float("-inf")).argmax() == token
        left -= LENGTHS[token]
    assert left == 0 and len(set(written)) > 2


def test_a_left_padded_batch_writes_what_each_row_writes_alone(backbone: GemBackbone):
    inputs = prompts(backbone, 3, 12, 7)
    together = writer(backbone).write(*inputs, coefficients=COEFFICIENTS)
    assert len({len(ids) for ids in together}) > 1  # rows stop singly
    alone = [writer(backbone).write(*inputs.row(row), coefficients=COEFFICIENTS)[0] for row in range(3)]
    assert together == alone


@pytest.mark.parametrize("coefficients", [1, 5, 24])
def test_every_row_is_whole_whatever_is_drawn(backbone: GemBackbone, coefficients: int):
    inputs = prompts(backbone, 3, 12, 7)
    generator = torch.Generator().manual_seed(0)
    written = writer(backbone).write(*inputs, coefficients=coefficients, temperature=5.0, generator=generator)
    assert [sum(LENGTHS[token] for token in ids) for ids in written] == [coefficients] * 3


def test_a_generator_repeats_what_it_draws(backbone: GemBackbone):
    inputs = prompts(backbone, 3, 12)

    def drawn(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return writer(backbone).write(*inputs, coefficients=9, temperature=5.0, generator=generator)

    assert drawn(0) == drawn(0) != drawn(1)
    greedy = writer(backbone).write(*inputs, coefficients=9)
    assert greedy == writer(backbone).write(*inputs, coefficients=9, temperature=1e-6)


def test_each_step_runs_one_position_and_the_rows_that_go_on(backbone: GemBackbone):
    inputs, sizes = prompts(backbone, 3, 12, 7), []
    hook = backbone.language_model.norm.register_forward_hook(
        lambda _, arguments, __: sizes.append(tuple(arguments[0].shape[:2]))
    )
    written = writer(backbone).write(*inputs, coefficients=COEFFICIENTS)
    hook.remove()
    counts = [len(ids) for ids in written]
    assert sizes[0] == (3, inputs.tokens.shape[1] + len(PREFIX))
    assert sizes[1:] == [(sum(count > step for count in counts), 1) for step in range(1, max(counts))]
