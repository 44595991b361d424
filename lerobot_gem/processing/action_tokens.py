"""Action chunks <-> tokens: discrete cosine transform, rounding, byte-pair encoding (FAST, arXiv 2501.09747).

A chunk (T, A) in [-1, 1] is transformed along time, multiplied by `scale`, rounded, and flattened frequency first: all numbers of
an action at frequency 0, then all at frequency 1, ... Byte-pair encoding then joins coefficients that often follow each other.

FAST as published is not total: coefficients that were not seen in fitting are dropped, and most sequences of tokens stand for no
chunk. Here both directions are total:

* |action| <= 1 bounds a coefficient by scale * sqrt(T), and the alphabet has every coefficient within the bound;
* a token stands for a known number of coefficients (`ActionTokens.lengths`). Who writes tokens and never takes one that is longer
  than the coefficients left ends with exactly T * A, without a token that says so.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from tokenizers import Tokenizer, models, trainers

# Characters that mean nothing to anyone: Unicode's private use area, 6,400 of them. Coefficient c is the character
# FIRST_CHARACTER + bound + c.
FIRST_CHARACTER = 0xE000
_CHARACTERS = 6400
# Mean error, of actions in [-1, 1], above which tokens say too little to act by.
LARGEST_ERROR = 0.1
# Coefficients of the longest token.
LONGEST = 4096
# As in FAST: a pair that occurs once is no pattern.
MIN_FREQUENCY = 2

Chunk = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class TokenReport:
    """What it costs to write chunks in tokens.

    Attributes:
        mean_tokens: Tokens per chunk.
        p99_tokens: Their 99th percentile.
        mean_error: Mean absolute difference between a number of an action and what its tokens say.
        max_error: The largest.
    """

    mean_tokens: float
    p99_tokens: float
    mean_error: float
    max_error: float

    def __str__(self) -> str:
        return (
            f"{self.mean_tokens:.1f} tokens per chunk (99 % of chunks: at most {self.p99_tokens:.0f}), actions in [-1, 1] come back "
            f"within {self.mean_error:.4f} on average, {self.max_error:.4f} at most"
        )


@dataclass(frozen=True)
class ActionTokens:
    """A vocabulary of action tokens. Token 0 to 2 * bound are the single coefficients -bound to bound, then come pairs.

    Attributes:
        chunk_size: Actions T of the chunks that it was fitted to.
        scale: What coefficients are multiplied by before they are rounded.
        pairs: Two tokens for each merge of byte-pair encoding, in order.
    """

    chunk_size: int
    scale: float
    pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        # A checkpoint may be a stranger's, and these numbers say how much memory the vocabulary takes.
        most = _CHARACTERS**2 / 4 - _CHARACTERS
        if not (self.chunk_size > 0 and self.scale > 0 and self.chunk_size * self.scale**2 < most):
            raise ValueError(
                f"Action tokens with chunk_size={self.chunk_size} and scale={self.scale:g}: expected both above 0, and at most "
                f"{_CHARACTERS} values of a coefficient, of which there are 2 * scale * sqrt(chunk_size). Lower one."
            )

    @classmethod
    def fit(cls, chunks: Sequence[Chunk], vocabulary: int = 256, scale: float = 10) -> Self:
        """Find the pairs of coefficients that often follow each other.

        Args:
            chunks: (T, A) each, all alike, in [-1, 1].
            vocabulary: Tokens at most.
            scale: What coefficients are multiplied by before they are rounded.

        Raises:
            ValueError: No chunks, of different sizes, out of [-1, 1] or not finite; or a vocabulary smaller than the alphabet.
        """
        shapes = {np.shape(chunk) for chunk in chunks}
        if len(shapes) != 1 or any(len(shape) != 2 or 0 in shape for shape in shapes):
            raise ValueError(
                f"Action tokens are fitted to chunks of the shapes {sorted(shapes)}: expected one shape (chunk size, action size)."
            )
        [(chunk_size, _)] = shapes
        alphabet = cls(chunk_size, scale)
        if vocabulary < len(alphabet):
            raise ValueError(
                f"action_tokens.vocabulary={vocabulary} with action_tokens.scale={scale:g} and chunk_size={chunk_size}: expected at least "
                f"{len(alphabet)}, one token for each value that a coefficient can have. Lower the scale or chunk_size, or raise "
                "the vocabulary if the backbone has room (266 in Qwen3-VL)."
            )
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=MIN_FREQUENCY,
            max_token_length=LONGEST,
            initial_alphabet=alphabet._words,
            show_progress=False,
        )
        bpe = Tokenizer(models.BPE())
        bpe.train_from_iterator(alphabet._texts(alphabet.quantise(np.stack(list(chunks)))), trainer)
        ids = {word: token for token, word in enumerate(alphabet._words)}
        pairs = []
        for left, right in json.loads(bpe.to_str())["model"]["merges"]:
            pairs.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids))
        return cls(chunk_size, scale, tuple(pairs))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From what `to_dict` wrote, or JSON made of it."""
        return cls(**fields | {"pairs": tuple((left, right) for left, right in fields["pairs"])})

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain JSON."""
        return asdict(self) | {"pairs": [list(pair) for pair in self.pairs]}

    def __len__(self) -> int:
        return len(self._words)

    @property
    def bound(self) -> int:
        """Largest coefficient of a chunk in [-1, 1]."""
        return math.ceil(self.scale * math.sqrt(self.chunk_size))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(len(self),), how many coefficients each token stands for."""
        return np.array([len(word) for word in self._words])

    def encode_all(self, chunks: Chunk) -> list[list[int]]:
        """Write chunks (N, T, A) in tokens; much faster than one by one.

        Raises:
            ValueError: Longer than the chunks that were fitted, beyond [-1, 1], or not finite.
        """
        texts = self._texts(self.quantise(chunks))
        return [encoding.ids for encoding in self._bpe.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(
        self, ids: Sequence[int], chunk_size: int, action_dim: int, max_coefficients: int | None = None
    ) -> NDArray[np.float64]:
        """The chunk (chunk_size, action_dim) that tokens stand for.

        Args:
            ids: The tokens.
            chunk_size: Actions T.
            action_dim: Numbers A of an action.
            max_coefficients: How many coefficients the tokens stand for; the others, of the highest frequencies, are 0. None is
                all of them.

        Raises:
            ValueError: The tokens stand for more or fewer coefficients.
        """
        total = chunk_size * action_dim
        expected = total if max_coefficients is None else min(max_coefficients, total)
        coefficients = np.zeros(total)
        if not all(0 <= token < len(self) for token in ids):
            raise ValueError(f"Action tokens {list(ids)}: expected numbers from 0 to {len(self) - 1}.")
        text = "".join(self._words[token] for token in ids)
        if len(text) != expected:
            raise ValueError(
                f"{len(ids)} action tokens stand for {len(text)} coefficients: expected {expected} for a chunk of {chunk_size} actions "
                f"of {action_dim} numbers. Never take a token that is longer than the coefficients left."
            )
        coefficients[:expected] = [ord(character) - FIRST_CHARACTER - self.bound for character in text]
        return idct(coefficients.reshape(chunk_size, action_dim) / self.scale, axis=0, norm="ortho")

    def quantise(self, chunks: Chunk) -> NDArray[np.int64]:
        """The coefficients (N, T, A) of chunks (N, T, A), frequency by frequency.

        Raises:
            ValueError: As `encode_all`.
        """
        chunks = np.asarray(chunks, dtype=np.float64)
        if chunks.ndim != 3 or 0 in chunks.shape[1:]:
            raise ValueError(f"Chunks of the shape {chunks.shape[1:]}: expected (chunk size, action size).")
        if chunks.shape[1] > self.chunk_size:
            raise ValueError(
                f"A chunk of {chunks.shape[1]} actions: the action tokens were fitted to chunks of {self.chunk_size}. Expected no more; "
                "leave --policy.chunk_size at the checkpoint's, or train a new policy."
            )
        # Rounding of single floats may put an action a hair beyond 1.
        if not (np.abs(chunks) <= 1 + 1e-4).all():
            worst = chunks.flat[np.argmax(np.nan_to_num(np.abs(chunks), nan=np.inf))]
            raise ValueError(
                f"An action has the number {worst:g} once it is normalised: action tokens expect [-1, 1]. Set "
                '--policy.normalization_mapping=\'{"ACTION": "MIN_MAX"}\' with the dataset\'s own statistics.'
            )
        coefficients = np.around(dct(chunks, axis=1, norm="ortho") * self.scale).astype(np.int64)
        return coefficients.clip(-self.bound, self.bound)

    def measure(self, chunks: Chunk) -> TokenReport:
        """What it costs to write chunks (N, T, A) in tokens, which are in [-1, 1]."""
        counts = [len(tokens) for tokens in self.encode_all(chunks)]
        errors = self.errors(chunks, np.shape(chunks)[1] * np.shape(chunks)[2])
        return TokenReport(
            float(np.mean(counts)),
            float(np.percentile(counts, 99)),
            float(errors.mean()),
            float(errors.max()),
        )

    def errors(self, chunks: Chunk, kept: int) -> NDArray[np.float64]:
        """Absolute differences (N, T, A) between chunks and what their first `kept` coefficients say."""
        coefficients = self.quantise(chunks).reshape(len(chunks), -1)
        coefficients[:, kept:] = 0
        back = idct(coefficients.reshape(np.shape(chunks)) / self.scale, axis=1, norm="ortho")
        return np.abs(back - chunks)

    @cached_property
    def _words(self) -> list[str]:
        """What each token stands for, one character for each coefficient."""
        words = [chr(FIRST_CHARACTER + value) for value in range(2 * self.bound + 1)]
        known = set(words)
        for left, right in self.pairs:
            if not (0 <= left < len(words) and 0 <= right < len(words)) or (
                len(words[left]) + len(words[right]) > LONGEST
            ):
                raise ValueError(
                    f"Action tokens with the pair ({left}, {right}): expected two tokens before it, of at most {LONGEST} coefficients "
                    "together. The checkpoint's config.json was changed; take it anew."
                )
            word = words[left] + words[right]
            if word not in known:  # two pairs may spell the same
                known.add(word)
                words.append(word)
        return words

    @cached_property
    def _bpe(self) -> Tokenizer:
        ids = {word: token for token, word in enumerate(self._words)}
        pairs = [(self._words[left], self._words[right]) for left, right in self.pairs]
        # Chunks are hardly ever equal, so that remembering them costs more than it saves.
        return Tokenizer(models.BPE(vocab=ids, merges=pairs, cache_capacity=0))

    def _texts(self, coefficients: NDArray[np.int64]) -> list[str]:
        """One text of each chunk's coefficients (N, T, A)."""
        rows = coefficients.reshape(len(coefficients), -1) + (FIRST_CHARACTER + self.bound)
        return rows.astype("<u4").view(f"<U{rows.shape[1]}")[:, 0].tolist()


def refuse_large_error(report: TokenReport, scale: float) -> None:
    """Raise a ValueError if tokens say too little to act by."""
    if report.mean_error > LARGEST_ERROR:
        raise ValueError(
            f"action_tokens.scale={scale:g}: actions in [-1, 1] come back from their tokens with a mean error of "
            f"{report.mean_error:.3f}, expected at most {LARGEST_ERROR}. Raise --policy.action_tokens.scale (10) of a new policy."
        )
