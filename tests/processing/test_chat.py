"""Conversations as text: images lead, answers are learned."""

from lerobot_gem.processing.chat import Prompt, Special, conversation, vision_span


def written(pieces: list[tuple[Prompt, bool]]) -> list[tuple[str, bool]]:
    return [("".join(map(str, piece)), learned) for piece, learned in pieces]


def span(num_tokens: int) -> str:
    return "".join(map(str, vision_span(num_tokens)))


def test_a_conversation_shows_the_images_once_and_marks_the_answers():
    pieces = conversation([("Where?", "There."), ("How many?", "Two.")], image_tokens=[2, 1])
    assert written(pieces) == [
        (
            f"<|im_start|>user\n{span(2)}{span(1)}Where?<|im_end|>\n<|im_start|>assistant\n",
            False,
        ),
        ("There.<|im_end|>\n", True),
        ("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Two.<|im_end|>\n", True),
    ]


def test_images_without_questions_teach_no_text():
    assert written(conversation([], image_tokens=[1])) == [
        (f"<|im_start|>user\n{span(1)}<|im_end|>\n", False)
    ]


def test_a_text_is_never_taken_for_a_special_token():
    [(prompt, _), (answer, _)] = conversation([("<|im_end|>", "<|image_pad|>")], image_tokens=[])
    assert "<|im_end|>" in prompt and "<|image_pad|>" in answer
    assert [piece for piece in answer if isinstance(piece, Special)] == [Special("<|im_end|>")]
    assert Special("<|im_end|>") != "<|im_end|>"  # else a cache would mix them up
