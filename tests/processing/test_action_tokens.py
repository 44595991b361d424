"""Action tokens are total in both directions, and say what FAST says."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from lerobot_gem.processing.action_tokens import ActionTokens, TokenReport, refuse_large_error
from tests.processing.universal_action_processor import FILE, SCALE, SIZES, smooth_chunks

FITTED = {size: ActionTokens.fit(list(smooth_chunks(200, *size))) for size in SIZES}
sizes = st.sampled_from(SIZES)
property_test = settings(max_examples=60, deadline=None)


@st.composite
def sizes_and_chunks(draw: st.DrawFn) -> tuple[tuple[int, int], NDArray[np.float64]]:
    size = draw(sizes)
    # Corners, constants, steps and noise, which a fit to smooth chunks never saw.
    return size, draw(arrays(np.float64, size, elements=st.floats(-1, 1)))


@property_test
@given(sizes_and_chunks())
def test_every_chunk_in_range_comes_back_within_the_bound_of_rounding(drawn):
    (chunk_size, action_dim), chunk = drawn
    tokens = FITTED[chunk_size, action_dim]
    [ids] = tokens.encode_all(chunk[None])
    assert tokens.lengths[ids].sum() == chunk.size
    back = tokens.decode(ids, chunk_size, action_dim)
    assert back.shape == chunk.shape
    # Each coefficient is off by half a step at most, and the transform keeps lengths.
    root_mean_square = np.sqrt(np.square(back - chunk).mean(axis=0))
    assert (root_mean_square <= 0.5 / SCALE + 1e-9).all()


@property_test
@given(sizes, st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_every_sequence_that_the_lengths_allow_is_a_chunk(size, seed, max_coefficients):
    tokens, random = FITTED[size], np.random.default_rng(seed)
    for limit in (None, max_coefficients):
        left = int(np.prod(size)) if limit is None else min(limit, int(np.prod(size)))
        ids = []
        while left:
            ids.append(int(random.choice(np.flatnonzero(tokens.lengths <= left))))
            left -= tokens.lengths[ids[-1]]
        chunk = tokens.decode(ids, *size, limit)
        assert chunk.shape == size and np.isfinite(chunk).all()


@pytest.mark.parametrize("size", SIZES)
def test_coefficients_and_chunks_are_those_of_universal_action_processor(size):
    stored, name = np.load(FILE), "x".join(map(str, size))
    tokens, chunks = FITTED[size], stored[f"{name}.chunks"]
    assert np.array_equal(tokens.quantise(chunks).reshape(len(chunks), -1), stored[f"{name}.coefficients"])
    decoded = [tokens.decode(ids, *size) for ids in tokens.encode_all(chunks)]
    np.testing.assert_allclose(decoded, stored[f"{name}.decoded"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("chunk_size", "action_dim"), SIZES)
def test_shorter_chunks_are_written_too(chunk_size, action_dim):
    tokens = FITTED[chunk_size, action_dim]
    chunks = smooth_chunks(1, chunk_size - 3, action_dim)
    [ids] = tokens.encode_all(chunks)
    assert np.abs(tokens.decode(ids, chunk_size - 3, action_dim) - chunks[0]).max() < 0.1


def test_pairs_make_chunks_shorter_and_the_vocabulary_is_kept():
    chunks = smooth_chunks(200, 16, 6)
    fitted = FITTED[16, 6]
    alphabet = ActionTokens(16, 10.0)
    assert len(alphabet) == 81 and len(fitted) == len(fitted.lengths) == 256
    assert fitted.measure(chunks).mean_tokens < 0.25 * alphabet.measure(chunks).mean_tokens == 0.25 * 96
    assert len(ActionTokens.fit(list(chunks), vocabulary=100)) == 100


def test_what_travels_is_json_and_writes_the_same():
    fitted, chunks = FITTED[16, 6], smooth_chunks(20, 16, 6, seed=1)
    again = ActionTokens.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    alone = [ids for chunk in chunks for ids in fitted.encode_all(chunk[None])]
    assert again.encode_all(chunks) == fitted.encode_all(chunks) == alone
    assert ActionTokens.fit(list(smooth_chunks(200, 16, 6))) == fitted  # nothing is drawn


def test_the_report_says_tokens_and_error():
    chunks, tokens = smooth_chunks(100, 16, 6, seed=2), FITTED[16, 6]
    report = tokens.measure(chunks)
    written = tokens.encode_all(chunks)
    counts = [len(ids) for ids in written]
    assert report.mean_tokens == np.mean(counts) and report.p99_tokens == np.percentile(counts, 99)
    back = np.stack([tokens.decode(ids, 16, 6) for ids in written])
    assert report.mean_error == pytest.approx(np.abs(back - chunks).mean())
    assert report.mean_error < 0.02 < report.max_error < 0.2
    assert "tokens per chunk" in str(report)


def test_a_prefix_costs_some_error():
    chunks, tokens = smooth_chunks(100, 32, 7, seed=2), FITTED[32, 7]
    whole, half, little = (tokens.errors(chunks, kept).mean() for kept in (224, 112, 14))
    assert tokens.measure(chunks).mean_error == whole
    assert half < 1.2 * whole < little


def test_at_least_20_000_chunks_a_second_are_encoded():
    chunks = smooth_chunks(5000, 16, 7)
    tokens = ActionTokens.fit(list(chunks[:1000]))
    tokens.encode_all(chunks[:1])
    seconds = []
    for _ in range(3):
        start = time.process_time()
        tokens.encode_all(chunks)
        seconds.append(time.process_time() - start)
    assert len(chunks) / min(seconds) > 20_000


def test_what_can_not_be_fitted_or_written_is_one_error():
    with pytest.raises(ValueError, match=r"vocabulary=64 .*chunk_size=16: expected at least 81"):
        ActionTokens.fit([np.zeros((16, 6))], vocabulary=64)
    with pytest.raises(ValueError, match=r"shapes \[\(8, 6\), \(16, 6\)\]: expected one shape"):
        ActionTokens.fit([np.zeros((16, 6)), np.zeros((8, 6))])
    with pytest.raises(
        ValueError, match=r"number 1\.5 once it is normalised: action tokens expect \[-1, 1\]"
    ):
        ActionTokens.fit([np.full((16, 6), 1.5)])
    tokens = FITTED[16, 6]
    for wrong in (-3.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"number {wrong:g} once it is normalised"):
            tokens.encode_all(np.full((1, 16, 6), wrong))
    with pytest.raises(
        ValueError, match="A chunk of 17 actions: the action tokens were fitted to chunks of 16"
    ):
        tokens.encode_all(np.zeros((1, 17, 6)))
    with pytest.raises(ValueError, match=r"stand for 95 coefficients: expected 96 for a chunk of 16 actions"):
        tokens.decode([0] * 95, 16, 6)
    with pytest.raises(ValueError, match=r"Action tokens \[-1\]: expected numbers from 0 to"):
        tokens.decode([-1], 1, 1)
    with pytest.raises(ValueError, match=r"Chunks of the shape \(6,\): expected"):
        tokens.encode_all(np.zeros((1, 6)))


def test_an_error_above_a_tenth_is_refused():
    chunks = smooth_chunks(100, 16, 6)
    coarse = ActionTokens.fit(list(chunks), scale=0.3)
    with pytest.raises(ValueError, match=r"scale=0.3: .*mean error of 0\.[1-9]\d+, expected at most 0\.1"):
        refuse_large_error(coarse.measure(chunks), coarse.scale)
    refuse_large_error(TokenReport(1, 1, 0.1, 1), 10)


def test_a_strangers_vocabulary_takes_no_memory():
    for chunk_size, scale in (
        (16, 1e12),
        (10**12, 10.0),
        (0, 10.0),
        (16, 0.0),
        (16, -10.0),
        (16, float("nan")),
    ):
        with pytest.raises(ValueError, match="expected both above 0, and at most 6400 values"):
            ActionTokens(chunk_size, scale)
    doubling = tuple((81 + step, 81 + step) for step in range(40))
    with pytest.raises(ValueError, match=r"the pair \(92, 92\): .*at most 4096 coefficients"):
        len(ActionTokens(16, 10.0, ((0, 0), *doubling)))
    with pytest.raises(ValueError, match=r"the pair \(-1, 0\): expected two tokens before it"):
        len(ActionTokens(16, 10.0, ((-1, 0),)))
