"""Conversations as text: images lead, answers are learned."""

from lerobot_gem.processing.chat import conversation, vision_span


def test_a_conversation_shows_the_images_once_and_marks_the_answers():
    pieces = conversation([("Where?", "There."), ("How many?", "Two.")], image_tokens=[2, 1])
    assert pieces == [
        (
            f"<|im_start|>user\n{vision_span(2)}{vision_span(1)}Where?<|im_end|>\n<|im_start|>assistant\n",
            False,
        ),
        ("There.<|im_end|>\n", True),
        ("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Two.<|im_end|>\n", True),
    ]


def test_images_without_questions_teach_no_text():
    assert conversation([], image_tokens=[1]) == [(f"<|im_start|>user\n{vision_span(1)}<|im_end|>\n", False)]
