"""Compiled acting: no graph break, the eager chunk, and a way back where it differs."""

import copy
import logging

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from lerobot_gem.inference import compiled
from lerobot_gem.inference.compiled import CompiledSampler
from tests.conftest import ACTION_DIM
from tests.inference.test_acting import NOISE, observe
from tests.policies.gem.test_modeling_gem import warm


@pytest.fixture
def acting(make_policy, monkeypatch, caplog):
    """A function that builds (policy that compiles, preprocessor), with a backend that traces and generates no code."""
    caplog.set_level(logging.INFO, logger=compiled.__name__)

    def build(backend="eager", **overrides):
        monkeypatch.setattr(CompiledSampler.__init__, "__defaults__", (backend,))
        policy, preprocess, _ = make_policy(compile_model=True, **overrides)
        return warm(policy), preprocess

    yield build
    torch._dynamo.reset()


def doubled(graph, _):
    """A compiler whose code gives twice the numbers."""
    return lambda *inputs: [2 * out if out.is_floating_point() else out for out in graph(*inputs)]


def eager_chunk(policy, batch, noise=NOISE, **guidance):
    policy.config.compile_model = False
    chunk = policy.predict_action_chunk(batch, noise=noise, **guidance)
    policy.config.compile_model = True
    return chunk


def said(caplog):
    """What this module logged; others may log too, once a test before has set LeRobot's logging up."""
    return [record for record in caplog.records if record.name == compiled.__name__]


def test_the_compiled_chunk_is_the_eager_one(acting, caplog):
    policy, preprocess = acting(dtype="bfloat16")
    for seed in range(2):
        batch = preprocess(observe(seed=seed))
        assert policy.predict_action_chunk(batch, noise=NOISE).equal(eager_chunk(policy, batch))
    assert policy._compiled.is_compiled
    [message] = [record.getMessage() for record in said(caplog)]
    assert message.startswith("compile_model: compiled for prompts of shape (1, ")
    assert message.endswith("the first chunk differs from the eager one by 0.")


@pytest.mark.slow
def test_generated_code_gives_the_eager_chunk_within_the_tolerance(acting):
    """In float32, whose tolerance is the smaller one; tests/gpu/test_gpu_check.py compiles in bfloat16."""
    policy, preprocess = acting("inductor", dtype="float32")
    policy.predict_action_chunk(preprocess(observe()), noise=NOISE)
    batch = preprocess(observe(seed=1))
    difference = policy.predict_action_chunk(batch, noise=NOISE) - eager_chunk(policy, batch)
    assert policy._compiled.is_compiled
    assert difference.abs().max() <= compiled.TOLERANCES["float32"]


def test_a_compiler_that_is_wrong_never_acts(acting, caplog):
    policy, preprocess = acting(doubled)
    batch = preprocess(observe())
    for _ in range(2):
        assert policy.predict_action_chunk(batch, noise=NOISE).equal(eager_chunk(policy, batch))
    assert not policy._compiled.is_compiled
    [record] = said(caplog)
    assert record.levelname == "WARNING"
    assert "differs from the eager one by" in record.message
    assert "more than 0.001. Nothing compiled acts" in record.message


def test_a_compiler_that_fails_is_an_error(acting):
    def fail(graph, _):
        raise OSError("no g++")

    policy, preprocess = acting(fail)
    with pytest.raises(
        RuntimeError, match=r"(?s)could not compile the policy .*no g\+\+.*compile_model=false"
    ):
        policy.predict_action_chunk(preprocess(observe()), noise=NOISE)


def test_another_shape_compiles_once_and_too_many_are_an_error(acting, caplog, monkeypatch):
    assert compiled.MAX_SHAPES >= 2 * 2 * 15  # LIBERO's lengths, see there
    policy, preprocess = acting()
    monkeypatch.setattr(compiled, "MAX_SHAPES", 2)
    batches = [preprocess(observe(task)) for task in ("pick up", "pick up the milk")]
    for batch in batches * 2:
        assert policy.predict_action_chunk(batch, noise=NOISE).equal(eager_chunk(policy, batch))
    assert len(said(caplog)) == 2
    with pytest.raises(ValueError, match=r"compile_model=true compiles for each shape, and met more than 2"):
        policy.predict_action_chunk(preprocess(observe("pick up the milk and the cup")), noise=NOISE)


def test_a_guided_chunk_is_compiled_up_to_its_loop(acting):
    policy, preprocess = acting()
    policy.config.rtc_config = RTCConfig(enabled=True)
    policy.init_rtc_processor()
    batch = preprocess(observe())
    first = policy.predict_action_chunk(batch, noise=NOISE)
    assert policy._compiled.is_compiled and first.equal(eager_chunk(policy, batch))
    guidance = {"inference_delay": 2, "prev_chunk_left_over": first + 0.5}
    guided = policy.predict_action_chunk(batch, noise=NOISE, **guidance)
    assert guided.equal(eager_chunk(policy, batch, **guidance)) and not guided.equal(first)


def test_lerobots_own_compilation_of_the_whole_leaves_it_alone(acting):
    policy, preprocess = acting()
    batch = preprocess(observe())
    expected = policy.predict_action_chunk(batch, noise=NOISE)
    wrapped = torch.compile(policy.predict_action_chunk, backend="eager")
    assert wrapped(batch, noise=NOISE).equal(expected)


def test_a_copy_of_the_policy_compiles_for_itself(acting):
    policy, preprocess = acting()
    batch = preprocess(observe())
    policy.predict_action_chunk(batch, noise=NOISE)
    other = warm(copy.deepcopy(policy))
    chunk = other.predict_action_chunk(batch, noise=NOISE)
    assert chunk.shape == (1, 4, ACTION_DIM)
    assert chunk.equal(eager_chunk(other, batch))
    assert not chunk.equal(eager_chunk(policy, batch))
