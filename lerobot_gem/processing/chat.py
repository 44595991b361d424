"""Messages <-> prompts in Qwen3-VL's chat format (ChatML with one vision span per image).

A vision span is ``<|vision_start|>``, one ``<|image_pad|>`` per merged image patch, ``<|vision_end|>``; the
hidden states strictly inside it are the image's tokens (GEM, section 3.1).

A prompt is a sequence of texts and `Special` tokens, which `encode` of processing/tokenizer.py makes tokens of. What stands
in a text is text: a task or an answer that says ``<|im_end|>`` ends no turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

IMAGE_TOKEN = "<|image_pad|>"
VISION_START_TOKEN = "<|vision_start|>"
VISION_END_TOKEN = "<|vision_end|>"
TURN_START_TOKEN = "<|im_start|>"
TURN_END_TOKEN = "<|im_end|>"


@dataclass(frozen=True)
class Special:
    """A special token of the format; no string, so that no text can be mistaken for it.

    Attributes:
        token: As the tokenizer writes it.
        times: How often it stands there in a row.
    """

    token: str
    times: int = 1

    def __str__(self) -> str:
        return self.token * self.times


Prompt = tuple[str | Special, ...]

ANSWER_PREFIX: Prompt = (Special(TURN_START_TOKEN), "assistant\n")
TURN_END: Prompt = (Special(TURN_END_TOKEN), "\n")
# What the release's inferencer appends to the user turn (docs/reference/configuration.md); its training appends nothing.
ACTION_SUFFIX: Prompt = (*ANSWER_PREFIX, Special("<|quad_start|>"))


def vision_span(num_tokens: int) -> Prompt:
    """The part of a prompt that the backbone turns into `num_tokens` visual tokens of one image."""
    return Special(VISION_START_TOKEN), Special(IMAGE_TOKEN, num_tokens), Special(VISION_END_TOKEN)


def user_turn(text: str, image_tokens: Sequence[int] = ()) -> Prompt:
    """One user turn: the images in order, then the text.

    Args:
        text: The instruction or question.
        image_tokens: Number of visual tokens of each image.
    """
    images = [piece for num_tokens in image_tokens for piece in vision_span(num_tokens)]
    return Special(TURN_START_TOKEN), "user\n", *images, text, *TURN_END


def conversation(
    exchanges: Sequence[tuple[str, str]], image_tokens: Sequence[int]
) -> list[tuple[Prompt, bool]]:
    """Questions and answers about some images, as pieces of a prompt that are tokenized one by one.

    Args:
        exchanges: Question and answer, in order; none gives a turn of images alone.
        image_tokens: Number of visual tokens of each image; all images lead the first turn.

    Returns:
        Pieces and whether each is learned. Learned are the answers with the end of their turn, as in the release; tokens
        never cross from one piece into the next, since at inference the prompt ends where the answer begins.
    """
    if not exchanges:
        return [(user_turn("", image_tokens), False)]
    pieces = []
    for question, answer in exchanges:
        pieces += [
            (user_turn(question, image_tokens) + ANSWER_PREFIX, False),
            ((answer, *TURN_END), True),
        ]
        image_tokens = ()
    return pieces
