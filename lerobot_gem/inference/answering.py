"""Questions about images, answered by the backbone through transformers' `generate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.processing.chat import ANSWER_PREFIX, TURN_END_TOKEN, user_turn
from lerobot_gem.processing.images import CameraImages
from lerobot_gem.processing.tokenizer import encode

# Images, (3, H, W) floats in [0, 1] of any sizes, and the question that follows them.
Question = tuple[Sequence[Tensor], str]


@dataclass(frozen=True)
class Answerer:
    """Answers questions with a backbone, greedily.

    Attributes:
        backbone: Has a language head, and is in evaluation mode.
        images: How images become patches.
        tokenizer: The backbone's.
        bfloat16: Whether to compute in bfloat16, whatever the type of the weights (autocast).
        max_new_tokens: Where a longer answer is cut.
    """

    backbone: GemBackbone
    images: CameraImages
    tokenizer: Any
    bfloat16: bool = False
    max_new_tokens: int = 256

    @cached_property
    def _writer(self) -> Any:
        """The backbone as `generate` takes it; made once, since at the size of 2b that takes half a second."""
        return self.backbone.for_generation()

    @torch.no_grad()
    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Answer questions in one batch.

        Args:
            questions: Each is asked alone, about its own images.

        Returns:
            An answer to each.
        """
        prompts = [
            user_turn(text, [self.images.token_count(*image.shape[-2:]) for image in shown]) + ANSWER_PREFIX
            for shown, text in questions
        ]
        device = next(self.backbone.parameters()).device
        tokens = self.tokenizer.pad(
            {"input_ids": [encode(self.tokenizer, prompt) for prompt in prompts]},
            padding_side="left",
            return_tensors="pt",
        ).to(device)
        pixel_values, image_grid_thw = self.images.patches_of(
            [image.to(device) for shown, _ in questions for image in shown]
        )
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            written = self._writer.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                mm_token_type_ids=(tokens["input_ids"] == self.backbone.image_token_id).int(),
                pixel_values=pixel_values,
                image_grid_thw=image_grid_thw.to(device),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                eos_token_id=self.tokenizer.convert_tokens_to_ids(TURN_END_TOKEN),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        answers = written[:, tokens["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]
