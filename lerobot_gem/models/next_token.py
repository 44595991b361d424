"""Learning to predict the next token: cross-entropy at the positions that are labelled."""

from typing import NamedTuple

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lerobot_gem.models.backbone import GemBackbone


class NextTokenLosses(NamedTuple):
    """One value for each of the M labelled tokens of all prompts.

    Attributes:
        losses: (M,), cross-entropy over the whole vocabulary.
        rows: (M,), the prompt of each.
        right: (M,), 1.0 where the likeliest token is the label.
    """

    losses: Tensor
    rows: Tensor
    right: Tensor


def next_token_losses(
    backbone: GemBackbone, states: Tensor, labels: Tensor, *, ignored: int
) -> NextTokenLosses:
    """What predicting the labelled tokens costs; the head runs where a token is labelled, and nowhere else.

    Args:
        backbone: Has a language head.
        states: (R, L, D), final states of the prompts.
        labels: (R, L), the token at its own position where it is learned, else `ignored`.
        ignored: No token.

    Raises:
        ValueError: The backbone was built without a language head.
    """
    learned = labels[:, 1:] != ignored
    targets = labels[:, 1:][learned]
    logits = backbone.logits(states[:, :-1][learned]).float()
    right = (logits.argmax(dim=-1) == targets).float()
    return NextTokenLosses(F.cross_entropy(logits, targets, reduction="none"), learned.nonzero()[:, 0], right)
