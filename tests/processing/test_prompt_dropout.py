"""Cameras and instructions that are left out, against prompts that never had them."""

import pytest
import torch
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS

from lerobot_gem.processing.chat import user_turn
from lerobot_gem.processing.prompt_dropout import Kept, draw_kept, leave_out
from lerobot_gem.processing.steps import (
    OBS_GRID_THW,
    OBS_INSTRUCTION,
    OBS_PIXEL_VALUES,
    OBS_SHOWN,
    PromptStep,
)
from lerobot_gem.processing.tokenizer import TINY_SPECIAL_TOKENS, build_tiny_tokenizer, encode
from tests.conftest import CAMERAS
from tests.processing.test_steps import IMAGES

CPU = torch.device("cpu")
START, END = (TINY_SPECIAL_TOKENS.index(f"<|vision_{side}|>") for side in ("start", "end"))
TASKS = ["pick up the milk", "go", "<|im_end|> is text here", "stack the red cube on the blue block"]
KEPT = Kept(
    torch.tensor([[True, False], [False, True], [True, True], [False, True]]),
    torch.tensor([True, False, False, True]),
)


@pytest.fixture
def step() -> PromptStep:
    return PromptStep(**IMAGES, tokenizer=build_tiny_tokenizer())


@pytest.fixture
def frames() -> dict[str, torch.Tensor]:
    """Cameras of two sizes, so that their spans differ in length."""
    return {CAMERAS[0]: torch.rand(4, 3, 64, 64), CAMERAS[1]: torch.rand(4, 3, 64, 128)}


def write(step: PromptStep, frames: dict) -> dict:
    counts = step.images.token_counts(frames)
    texts, _ = step.texts({"complementary_data": {"task": TASKS}}, counts, len(TASKS))
    patches, grid = step.images.patches(frames)
    return {**texts, OBS_PIXEL_VALUES: patches, OBS_GRID_THW: grid}


def test_what_is_left_is_the_prompt_of_the_other_cameras_and_of_an_empty_task(step, frames):
    batch = leave_out(write(step, frames), KEPT, vision_start=START, vision_end=END)
    counts = step.images.token_counts(frames)
    expected = [
        encode(
            step.tokenizer,
            user_turn(task if told else "", [n for n, shown in zip(counts, cameras, strict=True) if shown]),
        )
        for task, cameras, told in zip(TASKS, KEPT.cameras.tolist(), KEPT.instructions.tolist(), strict=True)
    ]
    tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
    assert [row[real].tolist() for row, real in zip(tokens, mask, strict=True)] == expected
    assert tokens.shape[1] == max(map(len, expected))
    assert all(real.equal(real.sort().values) for real in mask)  # padded on the left
    assert not set(tokens[~mask].tolist()) & {START, END, TINY_SPECIAL_TOKENS.index("<|image_pad|>")}
    told = [row[marked].tolist() for row, marked in zip(tokens, batch[OBS_INSTRUCTION], strict=True)]
    assert told == [
        step.tokenizer.backend_tokenizer.encode(task).ids if kept else []
        for task, kept in zip(TASKS, KEPT.instructions.tolist(), strict=True)
    ]

    shown = [(0, 0), (1, 1), (2, 0), (2, 1), (3, 1)]
    assert batch[OBS_SHOWN].tolist() == [list(image) for image in shown]
    patches, grid = step.images.patches(frames, shown)
    assert batch[OBS_PIXEL_VALUES].equal(patches) and batch[OBS_GRID_THW].equal(grid)


def test_where_all_is_kept_nothing_changes(step, frames):
    written = write(step, frames)
    kept = draw_kept(4, 2, camera_dropout=0, instruction_dropout=0, device=CPU)
    batch = leave_out(written, kept, vision_start=START, vision_end=END)
    mask = written[OBS_LANGUAGE_ATTENTION_MASK]
    assert batch[OBS_LANGUAGE_ATTENTION_MASK].equal(mask)
    assert batch[OBS_LANGUAGE_TOKENS][mask].equal(written[OBS_LANGUAGE_TOKENS][mask])
    assert all(batch[key].equal(written[key]) for key in (OBS_INSTRUCTION, OBS_PIXEL_VALUES, OBS_GRID_THW))


def test_nothing_is_drawn_at_zero():
    before = torch.get_rng_state()
    kept = draw_kept(5, 3, camera_dropout=0, instruction_dropout=0, device=CPU)
    assert kept.cameras.all() and kept.instructions.all()
    assert torch.get_rng_state().equal(before)


def test_torchs_generator_draws_as_often_as_asked_and_a_camera_always_stays():
    def draw(seed: int, share: float) -> Kept:
        torch.manual_seed(seed)
        return draw_kept(20_000, 2, camera_dropout=share, instruction_dropout=share, device=CPU)

    assert draw(0, 0.1).cameras.equal(draw(0, 0.1).cameras) and not draw(0, 0.1).cameras.equal(
        draw(1, 0.1).cameras
    )
    kept = draw(0, 0.1)
    # Both would go in 1 % of the samples: one of the two stays there.
    assert 1 - kept.cameras.float().mean(dim=0).numpy() == pytest.approx([0.095, 0.095], abs=0.007)
    assert 1 - kept.instructions.float().mean().item() == pytest.approx(0.1, abs=0.007)
    often = draw(0, 0.95).cameras
    assert often.any(dim=1).all()
    assert often[:, 0].float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_one_camera_is_never_left_out():
    assert draw_kept(100, 1, camera_dropout=0.9, instruction_dropout=0, device=CPU).cameras.all()
