"""The turn in which a backbone writes a chunk of actions in tokens: one more assistant turn behind the observation.

Action tokens and their start take rows of the backbone's embedding that its tokenizer leaves free (Qwen3-VL has 151,936 rows for
151,669 tokens), so that no weight is added and none changes its shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from lerobot_gem.processing.action_tokens import LARGEST_ERROR, ActionTokens, Chunk
from lerobot_gem.processing.chat import ANSWER_PREFIX
from lerobot_gem.processing.steps import IGNORED
from lerobot_gem.processing.tokenizer import encode


class TurnRows(NamedTuple):
    """Prompts with their turns.

    Attributes:
        tokens: (B, L + K).
        mask: (B, L + K) bool.
        labels: (B, L + K), the token where it is an action token, else `IGNORED`.
    """

    tokens: Tensor
    mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ActionTurn:
    """How chunks become turns.

    Attributes:
        tokens: Chunks <-> action tokens.
        prefix: What stands between the observation and the first action token; the start of actions is its last.
        action_dim: Numbers A of an action.
        errors: Mean error of an action in [-1, 1] when 1, 2, ... frequencies of its chunk are written.
    """

    tokens: ActionTokens
    prefix: tuple[int, ...]
    action_dim: int
    errors: tuple[float, ...]

    @classmethod
    def fit(
        cls, tokens: ActionTokens, chunks: Chunk, tokenizer: Any, *, embedding_rows: int, follows_suffix: bool
    ) -> Self:
        """Find rows for the tokens, and what each frequency is worth.

        Args:
            tokens: Fitted to the dataset.
            chunks: (N, T, A) of it, normalised.
            tokenizer: The backbone's.
            embedding_rows: Rows of its embedding.
            follows_suffix: The prompt ends within an assistant turn already (cameras.layout="concat").

        Raises:
            ValueError: The embedding has too few rows that the tokenizer leaves free.
        """
        start = spare_rows(tokenizer, embedding_rows, len(tokens) + 1)
        before = [] if follows_suffix else encode(tokenizer, ANSWER_PREFIX)
        _, chunk_size, action_dim = chunks.shape
        errors = [
            float(tokens.errors(chunks, frequencies * action_dim).mean())
            for frequencies in range(1, chunk_size + 1)
        ]
        return cls(tokens, (*before, start), action_dim, tuple(errors))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From what `to_dict` wrote, or JSON made of it."""
        tokens = ActionTokens.from_dict(fields["tokens"])
        return cls(tokens, tuple(fields["prefix"]), fields["action_dim"], tuple(fields["errors"]))

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain JSON."""
        return {
            "tokens": self.tokens.to_dict(),
            "prefix": list(self.prefix),
            "action_dim": self.action_dim,
            "errors": list(self.errors),
        }

    @property
    def first_row(self) -> int:
        """Row of action token 0; the others follow."""
        return self.prefix[-1] + 1

    @property
    def coefficients(self) -> int:
        """Coefficients of a chunk."""
        return self.tokens.chunk_size * self.action_dim

    def check_length(self, max_coefficients: int | None) -> None:
        """Raise a ValueError if a chunk has fewer coefficients than it is to end after, or says too little by then."""
        coefficients = self.coefficients if max_coefficients is None else max_coefficients
        if coefficients > self.coefficients:
            raise ValueError(
                f"action_tokens.max_coefficients={max_coefficients}: a chunk of {self.tokens.chunk_size} actions of {self.action_dim} numbers has "
                f"{self.coefficients}. Expected at most so many, or null for all."
            )
        # Those of a frequency that was begun are not counted.
        frequencies = coefficients // self.action_dim
        if frequencies and self.errors[frequencies - 1] <= LARGEST_ERROR:
            return
        enough = [number for number, error in enumerate(self.errors, 1) if error <= LARGEST_ERROR]
        if not enough:
            raise ValueError(
                f"The checkpoint's action tokens say too little at any length: errors {self.errors}, expected some of at most "
                f"{LARGEST_ERROR}. Its config.json was changed; take it anew."
            )
        found = (
            f"actions in [-1, 1] come back with a mean error of {self.errors[frequencies - 1]:.3f}, expected at most {LARGEST_ERROR}"
            if frequencies
            else f"not one frequency, which takes {self.action_dim} coefficients, one for each number of an action"
        )
        raise ValueError(
            f"action_tokens.max_coefficients={max_coefficients}: {found}. Take at least {enough[0] * self.action_dim} of the "
            f"{self.coefficients} coefficients, or null for all."
        )

    def append(self, tokens: Tensor, mask: Tensor, chunks: Tensor) -> TurnRows:
        """Prompts (B, L), padded on the left, with the turns of their chunks (B, T, A) behind, padded on the right."""
        written = self.tokens.encode_all(chunks.detach().cpu().double().numpy())
        rows = [[*self.prefix, *(self.first_row + token for token in ids)] for ids in written]
        longest = max(map(len, rows))
        # What pads is no image token, which would wait for a feature.
        turn = torch.tensor([row + [self.prefix[-1]] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        place = torch.arange(longest)
        is_real = place < lengths[:, None]
        learned = turn.where(is_real & (place >= len(self.prefix)), IGNORED)
        turn, is_real, learned = (part.to(tokens.device) for part in (turn, is_real, learned))
        return TurnRows(
            torch.cat([tokens, turn], dim=1),
            torch.cat([mask.bool(), is_real], dim=1),
            torch.cat([torch.full_like(tokens, IGNORED), learned], dim=1),
        )

    def chunks(self, written: Sequence[Sequence[int]], max_coefficients: int | None = None) -> Tensor:
        """The chunks (B, T, A), float32, in [-1, 1], of some action tokens."""
        size = self.tokens.chunk_size, self.action_dim
        decoded = [torch.from_numpy(self.tokens.decode(ids, *size, max_coefficients)) for ids in written]
        return torch.stack(decoded).float().clamp(-1, 1)


def spare_rows(tokenizer: Any, embedding_rows: int, needed: int) -> int:
    """The first row of an embedding that its tokenizer leaves free.

    Args:
        tokenizer: A `PreTrainedTokenizerFast`.
        embedding_rows: Rows of the embedding.
        needed: How many rows must be free from there on.

    Raises:
        ValueError: There are fewer.
    """
    # The largest id, not the number of tokens: a vocabulary may have holes.
    first = max(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    if first + needed > embedding_rows:
        raise ValueError(
            f"Action tokens need {needed} rows of the backbone's embedding that its tokenizer leaves free: of its {embedding_rows} rows "
            f"the tokenizer takes {first}. Lower --policy.action_tokens.vocabulary (and, where that is too small for the values of a "
            "coefficient, --policy.action_tokens.scale or chunk_size), or take Qwen3-VL's own weights and tokenizer, which leave 267 free."
        )
    return first
