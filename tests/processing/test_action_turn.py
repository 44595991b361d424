"""Turns of action tokens: their rows, their labels, and what a part of them is worth."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerobot_gem.models.presets import PRESETS
from lerobot_gem.processing.action_tokens import ActionTokens
from lerobot_gem.processing.action_turn import ActionTurn, spare_rows
from lerobot_gem.processing.chat import ANSWER_PREFIX
from lerobot_gem.processing.steps import IGNORED
from lerobot_gem.processing.tokenizer import TINY_VOCABULARY_SIZE, build_tiny_tokenizer, encode
from tests.processing.universal_action_processor import smooth_chunks

CHUNKS = smooth_chunks(100, 8, 3)


@pytest.fixture(scope="module")
def turn() -> ActionTurn:
    return ActionTurn.fit(
        ActionTokens.fit(list(CHUNKS), vocabulary=100),
        CHUNKS,
        build_tiny_tokenizer(),
        embedding_rows=TINY_VOCABULARY_SIZE,
        follows_suffix=False,
    )


def test_the_turn_is_an_assistant_turn_in_rows_that_the_tokenizer_leaves_free(turn: ActionTurn):
    tokenizer = build_tiny_tokenizer()
    assert turn.prefix[:-1] == tuple(encode(tokenizer, ANSWER_PREFIX))
    assert turn.prefix[-1] == len(tokenizer) and turn.first_row == len(tokenizer) + 1
    within = ActionTurn.fit(turn.tokens, CHUNKS, tokenizer, embedding_rows=1024, follows_suffix=True)
    assert within.prefix == turn.prefix[-1:]


def test_prompts_get_their_chunks_tokens_as_labels(turn: ActionTurn):
    prompts = torch.tensor([[0, 7, 8], [5, 6, 7]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    chunks = torch.from_numpy(np.stack([np.zeros((8, 3)), CHUNKS[1]]))
    rows = turn.append(prompts, mask, chunks)
    assert rows.tokens[:, :3].equal(prompts) and rows.mask[:, :3].equal(mask.bool())
    for row, written in enumerate(turn.tokens.encode_all(chunks.numpy())):
        learned = rows.labels[row] != IGNORED
        assert (rows.labels[row][learned] - turn.first_row).tolist() == written
        assert rows.tokens[row][learned].equal(rows.labels[row][learned])
        start = 3 + len(turn.prefix)
        assert rows.tokens[row, 3:start].tolist() == list(turn.prefix) and not learned[:start].any()
        assert rows.mask[row, 3:].sum() == len(turn.prefix) + learned.sum()


def test_chunks_come_back(turn: ActionTurn):
    back = turn.chunks(turn.tokens.encode_all(CHUNKS[:4]))
    assert back.shape == (4, 8, 3) and back.dtype == torch.float32
    assert np.abs(back.numpy() - CHUNKS[:4]).max() < 0.2


def test_what_travels_is_json(turn: ActionTurn):
    assert ActionTurn.from_dict(json.loads(json.dumps(turn.to_dict()))) == turn


def test_a_prefix_has_an_error_and_one_that_is_too_large_is_refused():
    chunks = smooth_chunks(100, 8, 3) * np.array([1, -1] * 4)[:, None]  # all in the highest frequencies
    tokens = ActionTokens.fit(list(chunks), vocabulary=100)
    turn = ActionTurn.fit(tokens, chunks, build_tiny_tokenizer(), embedding_rows=1024, follows_suffix=False)
    assert len(turn.errors) == 8
    assert turn.errors[-1] < 0.05 and turn.errors[1] > 0.1
    turn.check_length(None)
    turn.check_length(24)
    for few in (6, 7):
        with pytest.raises(
            ValueError,
            match=rf"max_coefficients={few}: .*mean error of {turn.errors[1]:.3f}, .*Take at least \d+ of the 24",
        ):
            turn.check_length(few)
    with pytest.raises(ValueError, match="max_coefficients=2: not one frequency, which takes 3 coefficients"):
        turn.check_length(2)
    with pytest.raises(ValueError, match="max_coefficients=25: a chunk of 8 actions of 3 numbers has 24"):
        turn.check_length(25)


def test_a_backbone_without_spare_rows_is_refused():
    tokenizer = build_tiny_tokenizer()
    assert spare_rows(tokenizer, 1024, 257) == len(tokenizer)
    with pytest.raises(
        ValueError, match=r"need 257 rows .*of its 600 rows the tokenizer takes 541\. .*which leave 267 free"
    ):
        spare_rows(tokenizer, 600, 257)


def test_qwen3_vl_leaves_room_for_256_tokens_and_a_start():
    """Sizes of the published tokenizer and embedding; the tokenizer itself can't be downloaded here."""
    vocabulary = SimpleNamespace(get_vocab=lambda with_added_tokens: {"last": 151_668})
    tokenizer = SimpleNamespace(backend_tokenizer=vocabulary)
    rows = PRESETS["2b"].backbone["text_config"]["vocab_size"]
    assert spare_rows(tokenizer, rows, 257) == 151_669
    with pytest.raises(ValueError, match="need 268 rows"):
        spare_rows(tokenizer, rows, 268)


def test_errors_that_are_all_too_large_are_the_checkpoints(turn: ActionTurn):
    with pytest.raises(ValueError, match="say too little at any length.*config.json was changed"):
        replace(turn, errors=(0.5,) * len(turn.errors)).check_length(None)
