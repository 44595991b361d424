"""Answers of a tiny backbone with random weights."""

from dataclasses import replace

import pytest
import torch

from lerobot_gem.inference.answering import Answerer
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer


@pytest.fixture
def answerer(make_gem) -> Answerer:
    policy, *_ = make_gem(stage="joint")
    torch.manual_seed(0)
    for parameter in policy.backbone.parameters():  # a fresh model may answer everything alike
        torch.nn.init.normal_(parameter, std=0.2)
    return Answerer(policy.backbone.eval(), policy.config.images, build_tiny_tokenizer(), max_new_tokens=8)


def test_answers_do_not_depend_on_what_else_is_asked(answerer: Answerer) -> None:
    small, large = torch.rand(3, 64, 64), torch.rand(3, 96, 128)
    questions = [([small], "Where is it?"), ([large, small], "How many mugs are there?")]
    together = answerer.answer(questions)
    assert together == [text for question in questions for text in answerer.answer([question])]
    assert together[0] != together[1]


def test_the_model_that_writes_is_built_once(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    batches = [
        [([torch.rand(3, 64, 64)], "Where is it?"), ([torch.rand(3, 96, 128)], "How many mugs are there?")],
        [([torch.rand(3, 64, 96)], "Is it on the plate?")],
    ]
    expected = [replace(answerer).answer(batch) for batch in batches]
    built, build = [], GemBackbone.for_generation
    monkeypatch.setattr(GemBackbone, "for_generation", lambda self: built.append(self) or build(self))
    assert [answerer.answer(batch) for batch in batches] == expected
    assert built == [answerer.backbone]
    # The weights are the backbone's own, now and later.
    torch.nn.init.normal_(answerer.backbone.language_model.embed_tokens.weight, std=0.2)
    changed = [answerer.answer(batch) for batch in batches]
    assert changed != expected and changed == [replace(answerer).answer(batch) for batch in batches]


def test_an_answer_is_cut_at_the_most_tokens(answerer: Answerer) -> None:
    question = ([torch.rand(3, 64, 64)], "Where is it?")
    short, long = (replace(answerer, max_new_tokens=tokens).answer([question])[0] for tokens in (2, 8))
    assert 0 < len(short) < len(long)


def test_bfloat16_is_close_to_float32_whatever_autocast_is_around_it(answerer: Answerer) -> None:
    images = [torch.rand(3, 64, 64)]

    def states(bfloat16: bool, outer: bool = False) -> torch.Tensor:
        """Of the question; those of the written tokens follow."""
        read: list[torch.Tensor] = []
        norm = answerer.backbone.language_model.norm
        hook = norm.register_forward_hook(lambda _, __, output: read.append(output))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            replace(answerer, bfloat16=bfloat16, max_new_tokens=2).answer([(images, "Where is it?")])
        hook.remove()
        return read[0]

    exact, rounded = states(bfloat16=False), states(bfloat16=True)
    assert rounded.dtype == exact.dtype == torch.float32
    assert not rounded.equal(exact)
    assert states(bfloat16=True, outer=True).equal(rounded)
    assert states(bfloat16=False, outer=True).equal(exact)
    # One rounding is 0.4 %.
    assert (rounded - exact).abs().mean() < 0.02 * exact.abs().mean()
