"""The tiny preset's tokenizer."""

import pytest

from lerobot_gem.models.presets import get_preset
from lerobot_gem.processing.tokenizer import TINY_SPECIAL_TOKENS, TINY_VOCABULARY_SIZE, build_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tiny_tokenizer()


def test_special_tokens_have_the_ids_that_the_backbone_expects(tokenizer):
    backbone = get_preset("tiny").backbone
    ids = tokenizer.convert_tokens_to_ids(list(TINY_SPECIAL_TOKENS))
    assert ids == list(range(len(TINY_SPECIAL_TOKENS)))
    for name, token in (
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
        ("image_token_id", "<|image_pad|>"),
    ):
        assert tokenizer.convert_tokens_to_ids(token) == backbone[name]
    assert len(tokenizer) <= TINY_VOCABULARY_SIZE == backbone["text_config"]["vocab_size"]


@pytest.mark.parametrize("text", ["pick up the milk", "ein Würfel 立方体 🤖", "\t\n"])
def test_any_text_survives(tokenizer, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_is_the_same_each_time(tokenizer):
    assert build_tiny_tokenizer().get_vocab() == tokenizer.get_vocab()
