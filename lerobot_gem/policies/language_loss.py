"""The loss of the answers to questions, by sample."""

from collections.abc import Mapping

from torch import Tensor

from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.next_token import next_token_losses
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_ROW_SAMPLES

LANGUAGE, ACCURACY = "language", "accuracy"


def language_sums(
    backbone: GemBackbone, states: Tensor, prompts: Mapping[str, Tensor], batch_size: int
) -> dict[str, SampleSums]:
    """Those of the answers.

    Args:
        backbone: Has a language head.
        states: (R, L, D), final states of the prompts.
        prompts: Their labels (R, L) and samples (R,), as `PromptStep` writes them.
        batch_size: Samples B.
    """
    answers = next_token_losses(backbone, states, prompts[OBS_LABELS], ignored=IGNORED)
    samples = prompts[OBS_ROW_SAMPLES][answers.rows]
    return {
        LANGUAGE: SampleSums.of(answers.losses, samples, batch_size),
        ACCURACY: SampleSums.of(answers.right, samples, batch_size),
    }


def language_logs(sums: Mapping[str, SampleSums]) -> dict[str, float]:
    """What is logged of the answers that were learned."""
    return {"language_loss": sums[LANGUAGE].mean(), "token_accuracy": sums[ACCURACY].mean()}
