"""What is drawn depends on seed, step and process alone."""

import torch
from torch.utils.checkpoint import checkpoint

from lerobot_gem.training.draws import drawing_apart, drawing_by

CPU = torch.device("cpu")


def drawn(seed: int = 1, step: int = 2, rank: int = 3) -> torch.Tensor:
    with drawing_by(seed, step, rank, CPU):
        return torch.randn(8)


def test_seed_step_and_process_decide():
    first = drawn()
    torch.rand(5)
    assert drawn().equal(first)
    others = [drawn(seed=2), drawn(step=3), drawn(rank=0), drawn(2, 1, 3), drawn(seed=2**64 - 1)]
    assert len({tuple(values.tolist()) for values in (first, *others)}) == 6


def test_torchs_generator_goes_on_as_if_nothing_had_been_drawn():
    before = torch.get_rng_state()
    drawn()
    assert torch.get_rng_state().equal(before)


def test_what_is_computed_again_in_the_backward_pass_is_drawn_again():
    weight = torch.ones(8, requires_grad=True)
    with drawing_by(1, 2, 3, CPU):
        loss = checkpoint(lambda values: (values * torch.randn(8)).sum(), weight, use_reentrant=False)
    loss.backward()
    assert weight.grad is not None and weight.grad.equal(drawn())


def test_however_much_is_drawn_apart_torchs_generator_moves_alike():
    def drawn_and_behind(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        with drawing_apart():
            within = torch.randn(count)
        return within, torch.get_rng_state()

    before = torch.get_rng_state()
    little, after_little = drawn_and_behind(32)
    torch.set_rng_state(before)
    much, after_much = drawn_and_behind(3200)
    assert after_little.equal(after_much) and not after_little.equal(before)
    assert much[:32].equal(little)
    assert not drawn_and_behind(32)[0].equal(little), "a second model must have other weights"


def test_the_seed_of_the_run_is_known_apart():
    before = torch.initial_seed()
    with drawing_apart():
        assert torch.initial_seed() == before
