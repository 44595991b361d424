"""Writes universal_action_processor.npz: what LeRobot's FAST (`UniversalActionProcessor` of molmoact2, 0.6.1) makes of chunks.

Importing it loads all of molmoact2, so the tests read the file.

    python -m tests.processing.universal_action_processor
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("universal_action_processor.npz")
SIZES = ((8, 7), (16, 6), (32, 7))
SCALE = 10
KEPT = 8  # of the 40 chunks that it is fitted to


def smooth_chunks(count: int, chunk_size: int, action_dim: int, seed: int = 0) -> NDArray[np.float64]:
    """Chunks (count, chunk_size, action_dim) in [-1, 1] that drift as an arm does."""
    random = np.random.default_rng(seed)
    steps = np.cumsum(0.01 * random.normal(size=(count, chunk_size, action_dim)), axis=1)
    return (random.uniform(-0.9, 0.9, (count, 1, action_dim)) + np.cumsum(steps, axis=1)).clip(-1, 1)


def main() -> None:
    from lerobot.policies.molmoact2.molmoact2_hf_model.action_tokenizer import UniversalActionProcessor

    arrays = {}
    for chunk_size, action_dim in SIZES:
        chunks = smooth_chunks(40, chunk_size, action_dim)
        fast = UniversalActionProcessor.fit(
            list(chunks), scale=SCALE, vocab_size=512, time_horizon=chunk_size, action_dim=action_dim
        )
        tokens = fast(chunks[:KEPT])
        texts = [fast.bpe_tokenizer.decode(ids) for ids in tokens]
        name = f"{chunk_size}x{action_dim}"
        arrays |= {
            f"{name}.chunks": chunks[:KEPT],
            f"{name}.coefficients": np.array([[ord(c) + fast.min_token for c in text] for text in texts]),
            f"{name}.decoded": fast.decode(tokens),
        }
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
