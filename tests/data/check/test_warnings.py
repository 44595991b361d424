"""Warnings: each has a case that raises it, and a good dataset has none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.data.check.facts import (
    CameraFacts,
    DepthFacts,
    Inspection,
    LanguageFacts,
    PromptFacts,
    VectorFacts,
)
from lerobot_gem.data.check.warnings import warnings_of

CAMERA = CameraFacts("observation.images.image", (64, 64), "image", "observation.images.image_depth", 0.0)
DEPTH = DepthFacts(
    "observation.images.image_depth", CAMERA.key, (64, 64), "image", "mm", (0.3, 1.0, 4.0), 0.1, 0.0
)
PROMPTS = PromptFacts("gem", "tiny", 10, [4], 10, (50, 60, 70), 4096, 0, {None: 10}, 3, 0)
ACTION = VectorFacts("action", ["x", "grip"], np.zeros(2), np.ones(2), 0, [], True)


def inspection(**facts) -> Inspection:
    good = {"cameras": [CAMERA], "depth": [DEPTH], "prompts": [PROMPTS], "vectors": [ACTION], "padding": 0.1}
    return Inspection("local/noise", Path("noise"), None, 5, 1, 10, **{**good, **facts})


def test_a_good_dataset_has_none():
    assert warnings_of(inspection()) == []


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"cameras": [replace(CAMERA, one_colour=0.25)]}, [CAMERA.key, "25.0%"]),
        ({"cameras": [CAMERA, replace(CAMERA, key="wrist", depth=None)]}, ["wrist"]),
        ({"depth": [replace(DEPTH, empty=0.5)]}, [DEPTH.key, "50.0%"]),
        ({"depth": [replace(DEPTH, invalid=0.9)]}, [DEPTH.key, "90.0%", "mm"]),
        (
            {"language": [LanguageFacts("language_persistent", "memory", "assistant", None, 7)]},
            ["7", "memory"],
        ),
        ({"prompts": [replace(PROMPTS, too_long=2)]}, ["2 of 10", "4,096", "--policy.cameras.max_pixels"]),
        ({"prompts": [replace(PROMPTS, left_out=5)]}, ["5", "--policy.cameras.names"]),
        ({"prompts": [replace(PROMPTS, task_only=10)]}, ["task sentence"]),
        ({"vectors": [replace(ACTION, still=["grip"])]}, ["action", "grip", "nothing to learn"]),
        ({"vectors": [replace(ACTION, has_stats=False)]}, ["action", "meta/stats.json"]),
        ({"vectors": [replace(ACTION, stale=["x"])]}, ["action", "meta/stats.json", " x"]),
        ({"outside": ["extra_cam"]}, ["extra_cam", "observation.images.<name>", "lerobot-gem-rename"]),
        ({"unread": {"observation.effort": 3}}, ["observation.effort", "3 frame(s)", "stops nothing"]),
        (
            {"state_like": ["observation.joints"]},
            ["observation.joints", "use_state=false", "lerobot-gem-rename"],
        ),
        ({"padding": 0.8}, ["80.0%", "--policy.chunk_size"]),
    ],
)
def test_each_oddity_has_one_warning_that_names_it(facts, named):
    [warning] = warnings_of(inspection(**facts))
    assert all(name in warning for name in named)


def test_actions_do_not_matter_to_pretraining():
    constant = replace(ACTION, still=["grip"])
    assert warnings_of(inspection(vectors=[constant], padding=0.9, asked="joint")) == []
    assert len(warnings_of(inspection(vectors=[constant], padding=0.9, asked="action"))) == 2
