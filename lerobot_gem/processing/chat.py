"""Messages <-> tokens in Qwen3-VL's chat format (ChatML with one vision span per image).

A vision span is ``<|vision_start|>``, one ``<|image_pad|>`` per merged image patch, ``<|vision_end|>``; the
hidden states strictly inside it are the image's tokens (GEM, section 3.1).
"""

from collections.abc import Sequence

IMAGE_TOKEN = "<|image_pad|>"
VISION_START_TOKEN = "<|vision_start|>"
VISION_END_TOKEN = "<|vision_end|>"

# What the release's inferencer appends to the user turn (RELEASE.md, "VLM input"); its training appends nothing.
ACTION_SUFFIX = "<|im_start|>assistant\n<|quad_start|>"


def vision_span(num_tokens: int) -> str:
    """The text of one image that the backbone turns into `num_tokens` visual tokens."""
    return VISION_START_TOKEN + IMAGE_TOKEN * num_tokens + VISION_END_TOKEN


def user_turn(text: str, image_tokens: Sequence[int]) -> str:
    """One user turn: the images in order, then the text.

    Args:
        text: The instruction or question.
        image_tokens: Number of visual tokens of each image.
    """
    images = "".join(vision_span(num_tokens) for num_tokens in image_tokens)
    return f"<|im_start|>user\n{images}{text}<|im_end|>\n"
