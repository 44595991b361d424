"""Messages <-> tokens in Qwen3-VL's chat format (ChatML with one vision span per image).

A vision span is ``<|vision_start|>``, one ``<|image_pad|>`` per merged image patch, ``<|vision_end|>``; the
hidden states strictly inside it are the image's tokens (GEM, section 3.1).
"""

from collections.abc import Sequence

IMAGE_TOKEN = "<|image_pad|>"
VISION_START_TOKEN = "<|vision_start|>"
VISION_END_TOKEN = "<|vision_end|>"

ANSWER_PREFIX = "<|im_start|>assistant\n"
ANSWER_SUFFIX = "<|im_end|>\n"
# What the release's inferencer appends to the user turn (docs/provenance.md); its training appends nothing.
ACTION_SUFFIX = ANSWER_PREFIX + "<|quad_start|>"


def vision_span(num_tokens: int) -> str:
    """The text of one image that the backbone turns into `num_tokens` visual tokens."""
    return VISION_START_TOKEN + IMAGE_TOKEN * num_tokens + VISION_END_TOKEN


def user_turn(text: str, image_tokens: Sequence[int] = ()) -> str:
    """One user turn: the images in order, then the text.

    Args:
        text: The instruction or question.
        image_tokens: Number of visual tokens of each image.
    """
    images = "".join(vision_span(num_tokens) for num_tokens in image_tokens)
    return f"<|im_start|>user\n{images}{text}<|im_end|>\n"


def conversation(exchanges: Sequence[tuple[str, str]], image_tokens: Sequence[int]) -> list[tuple[str, bool]]:
    """Questions and answers about some images, as pieces of text that are tokenized one by one.

    Args:
        exchanges: Question and answer, in order; none gives a turn of images alone.
        image_tokens: Number of visual tokens of each image; all images lead the first turn.

    Returns:
        Text and whether it is learned. Learned are the answers with the end of their turn, as in the release; tokens
        never cross from one piece into the next, since at inference the prompt ends where the answer begins.
    """
    if not exchanges:
        return [(user_turn("", image_tokens), False)]
    pieces = []
    for question, answer in exchanges:
        pieces += [
            (user_turn(question, image_tokens) + ANSWER_PREFIX, False),
            (f"{answer}{ANSWER_SUFFIX}", True),
        ]
        image_tokens = ()
    return pieces
