"""Questions about images, answered by the backbone through transformers' `generate`."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.processing.chat import ANSWER_PREFIX, ANSWER_SUFFIX, user_turn
from lerobot_gem.processing.images import CameraImages


def write_answers(
    backbone: GemBackbone,
    images: CameraImages,
    tokenizer: Any,
    questions: Sequence[tuple[Sequence[Tensor], str]],
    max_new_tokens: int,
) -> list[str]:
    """Answer questions greedily, in one batch.

    Args:
        backbone: With a language head.
        images: How images become patches.
        tokenizer: Of the backbone.
        questions: Images, (3, H, W) floats in [0, 1] of any sizes, and the question after them.
        max_new_tokens: Where a longer answer is cut.
    """
    prompts = [
        user_turn(question, [images.token_count(*image.shape[-2:]) for image in shown]) + ANSWER_PREFIX
        for shown, question in questions
    ]
    device = next(backbone.parameters()).device
    tokens = tokenizer(
        prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
    ).to(device)
    pixel_values, image_grid_thw = images.patches_of(
        [image.to(device) for shown, _ in questions for image in shown]
    )
    written = backbone.for_generation().generate(
        input_ids=tokens["input_ids"],
        attention_mask=tokens["attention_mask"],
        mm_token_type_ids=(tokens["input_ids"] == backbone.image_token_id).int(),
        pixel_values=pixel_values,
        image_grid_thw=image_grid_thw,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(ANSWER_SUFFIX.strip()),
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = written[:, tokens["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
