"""The tokenizers: Qwen's own for pretrained backbones, a small one built in code for the `tiny` preset."""

from itertools import groupby
from typing import Any

from lerobot_gem.processing.chat import (
    IMAGE_TOKEN,
    TURN_END_TOKEN,
    TURN_START_TOKEN,
    VISION_END_TOKEN,
    VISION_START_TOKEN,
    Prompt,
    Special,
)

PAD_TOKEN = "<|endoftext|>"
# Position = id. The `tiny` preset's backbone refers to the vision tokens by these ids.
TINY_SPECIAL_TOKENS = (
    PAD_TOKEN,
    VISION_START_TOKEN,
    VISION_END_TOKEN,
    IMAGE_TOKEN,
    "<|video_pad|>",
    TURN_START_TOKEN,
    TURN_END_TOKEN,
    "<|quad_start|>",
)
TINY_VOCABULARY_SIZE = 1024

# Sentences in the manner of LIBERO's and SO-100's tasks: they give their words tokens of their own. Any other text
# is spelled in smaller pieces, down to bytes, so that nothing is unknown.
_TINY_CORPUS = (
    "pick up the alphabet soup and place it in the basket",
    "pick up the cream cheese and place it in the basket",
    "pick up the salad dressing and place it in the basket",
    "pick up the bbq sauce and place it in the basket",
    "pick up the ketchup and place it in the basket",
    "pick up the tomato sauce and place it in the basket",
    "pick up the butter and place it in the basket",
    "pick up the milk and place it in the basket",
    "pick up the chocolate pudding and place it in the basket",
    "pick up the orange juice and place it in the basket",
    "pick up the black bowl between the plate and the ramekin and place it on the plate",
    "pick up the black bowl next to the cookie box and place it on the plate",
    "pick up the black bowl from table center and place it on the plate",
    "pick up the black bowl in the top drawer of the wooden cabinet and place it on the plate",
    "pick up the black bowl on the stove and place it on the plate",
    "open the middle drawer of the cabinet and put the wine bottle on the rack",
    "turn on the stove and put the moka pot on it",
    "put both the white mug on the left and the yellow mug in the microwave and close it",
    "push the plate to the front of the stove",
    "grasp the red cube with the gripper and stack it behind the blue block on the right",
    "where is the object, point to it, how many are there, which one is nearer",
    "move the arm forward, backward, up, down, left, right; release; 0 1 2 3 4 5 6 7 8 9",
)


def build_tiny_tokenizer() -> Any:
    """A byte-level BPE `PreTrainedTokenizerFast` with Qwen's special tokens; trained here, deterministic."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _TINY_CORPUS,
        trainers.BpeTrainer(
            vocab_size=TINY_VOCABULARY_SIZE,
            special_tokens=list(TINY_SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD_TOKEN)


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Write a prompt in tokens. Special tokens that a text spells out are text, and have no power.

    Args:
        tokenizer: A `PreTrainedTokenizerFast` with Qwen's special tokens.
        prompt: Texts and special tokens; texts that follow each other are one text.

    Raises:
        ValueError: A text is not valid Unicode, or the tokenizer lacks a special token.
    """
    # The tokenizer itself: transformers' call around it takes longer than the work.
    backend = tokenizer.backend_tokenizer
    ordinary = backend.encode_special_tokens
    backend.encode_special_tokens = True
    tokens: list[int] = []
    try:
        for is_special, pieces in groupby(prompt, key=lambda piece: isinstance(piece, Special)):
            if is_special:
                tokens += [token for piece in pieces for token in _ids(backend, piece)]
            else:
                text = _valid("".join(map(str, pieces)))
                tokens += backend.encode(text, add_special_tokens=False).ids
    finally:
        backend.encode_special_tokens = ordinary
    return tokens


def check_normalizer(normalizer: Any) -> None:
    """Raise a ValueError if a tokenizer's file rewrites texts otherwise than by Unicode's normal forms, as none of Qwen's does.

    Replacements that follow each other can double a text forty times.

    Args:
        normalizer: The entry of that name in the file.
    """
    kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
    if kind not in (None, "NFC", "NFD", "NFKC", "NFKD"):
        raise ValueError(
            f"The tokenizer has the normalizer {str(kind)[:80]!r}: expected none or NFC, as of Qwen's tokenizers. Copy or download the "
            "checkpoint again, from somebody whom you trust."
        )


def _ids(backend: Any, special: Any) -> list[int]:
    token = backend.token_to_id(special.token)
    if token is None:
        raise ValueError(
            f"The tokenizer has no token {special.token!r}: expected the tokenizer of Qwen3-VL or of a checkpoint of this "
            "package."
        )
    return [token] * special.times


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text {text.strip()[:200]!r} holds {text[error.start]!r}, half of a character (a surrogate without its "
            "partner): expected valid Unicode. Correct the text, or leave it out."
        ) from error
    return text
