"""Batches in parts: every row goes with its sample (the gradients of whole policies: tests/policies/test_gradients.py)."""

import torch
from torch import Tensor

from lerobot_gem.processing.steps import OBS_LABELS, OBS_PIXEL_VALUES, OBS_ROW_SAMPLES, OBS_SHOWN
from lerobot_gem.training.micro_batches import in_parts, split_batch
from tests.policies.test_depth_loss import Case

TOKENS = "observation.language.tokens"


def test_each_part_is_what_the_processor_makes_of_its_samples(make_gem, depth_dataset_root):
    """Five samples with one to two prompts and images of two sizes, in parts of two, two and one."""
    case = Case(wide=True)
    _, preprocess, _ = make_gem(stage="joint", **case.options())
    raw = case.batch(depth_dataset_root)
    parts = split_batch(preprocess(dict(raw)), batch_size=5, size=2)
    assert len(parts) == 3
    for first, part in zip((0, 2, 4), parts, strict=True):
        samples = slice(first, first + 2)
        own = preprocess(
            {key: value[samples] if isinstance(value, Tensor | list) else value for key, value in raw.items()}
        )
        assert part.keys() == own.keys()
        for key, expected in own.items():
            value = part[key]
            if key.startswith("observation.language") and key not in (OBS_ROW_SAMPLES, OBS_SHOWN):
                value = value[:, : expected.shape[1]]  # padded on the right to the batch's longest
            assert value.equal(expected) if isinstance(expected, Tensor) else value == expected, key
        assert len(part[TOKENS]) == len(part[OBS_LABELS]) == len(part[OBS_ROW_SAMPLES])


def test_prompts_for_acting_take_their_images_along(make_policy, batch):
    _, preprocess, _ = make_policy()
    inputs = preprocess(batch)
    parts = split_batch(inputs, batch_size=4, size=3)
    for key in (OBS_PIXEL_VALUES, TOKENS, "action", "observation.state"):
        assert torch.cat([part[key] for part in parts]).equal(inputs[key])
    assert [len(part["action"]) for part in parts] == [3, 1]
    assert len(parts[0][OBS_PIXEL_VALUES]) == 3 * len(parts[1][OBS_PIXEL_VALUES])


def test_a_batch_that_fits_is_computed_at_once():
    batch = {"action": torch.ones(4, requires_grad=True)}
    for size in (None, 4, 5):
        (result,) = in_parts(lambda part: part["action"] * 2, batch, 4, size)
        assert result.equal(2 * batch["action"])
