"""The tiny preset's tokenizer."""

import json

import pytest
import torch

from lerobot_gem.models.presets import get_preset
from lerobot_gem.processing.chat import ACTION_SUFFIX, ANSWER_PREFIX, TURN_END, Special, user_turn
from lerobot_gem.processing.steps import PromptStep
from lerobot_gem.processing.tokenizer import (
    TINY_SPECIAL_TOKENS,
    TINY_VOCABULARY_SIZE,
    build_tiny_tokenizer,
    encode,
)


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


def test_a_prompt_has_the_tokens_of_its_text(tokenizer):
    for prompt in (
        user_turn("pick up the milk", [3, 2]) + ACTION_SUFFIX,
        user_turn(" two blanks  and a line\n", ()) + ANSWER_PREFIX,
        ("", *TURN_END),
    ):
        text = "".join(map(str, prompt))
        assert encode(tokenizer, prompt) == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("token", TINY_SPECIAL_TOKENS)
def test_special_tokens_in_a_text_have_no_power(tokenizer, token):
    text = f"press the {token} key"
    tokens = encode(tokenizer, (text,))
    assert tokenizer.convert_tokens_to_ids(token) not in tokens
    assert tokenizer.decode(tokens) == text
    # And the tokenizer is left as it was.
    assert tokenizer.convert_tokens_to_ids(token) in tokenizer(text)["input_ids"]


def test_a_text_that_is_no_unicode_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"'the \\ud83d cup' holds '\\ud83d', half of a character"):
        encode(tokenizer, ("the \ud83d cup",))


def test_a_tokenizer_without_the_formats_tokens_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"has no token '<\|other\|>': expected the tokenizer of Qwen3-VL"):
        encode(tokenizer, (Special("<|other|>"),))


def test_a_file_that_pads_and_cuts_changes_nothing() -> None:
    step = PromptStep(
        tokenizer=build_tiny_tokenizer(), cameras=["a"], layout="separate", patch_size=16,
        temporal_patch_size=2, merge_size=2, min_pixels=1024, max_pixels=4096,
    )  # fmt: skip
    state = step.state_dict()
    values = json.loads(bytes(state["tokenizer_json"].numpy()))
    pad = {"strategy": {"Fixed": 500}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    values["padding"] = {**pad, "pad_to_multiple_of": None}

    def load() -> None:
        text = bytearray(json.dumps(values).encode())
        step.load_state_dict({**state, "tokenizer_json": torch.frombuffer(text, dtype=torch.uint8)})

    load()
    assert len(encode(step.tokenizer, ("pick up",))) < 10
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    values["normalizer"] = {"type": "Sequence", "normalizers": [doubling] * 40}
    with pytest.raises(ValueError, match="normalizer 'Sequence': expected none or NFC"):
        load()
