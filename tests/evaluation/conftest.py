"""A dataset of questions, and a tiny model in two formats to ask them."""

import itertools
from pathlib import Path

import pytest

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.storage.question_kinds import write_question_kinds
from tests.conftest import CAMERAS, FRAMES, add_language_rows, build_policy, vqa, write_dataset
from tests.policies.gem.test_modeling_gem import save, warm

FRONT, WRIST = CAMERAS


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> Path:
    """A dataset with questions of many kinds in some frames of two episodes, about both cameras."""
    events = {
        frame: [
            *vqa("Point to the mug.", '{"point_2d": [200, 200]}', FRONT),
            *vqa("Draw a box around the mug.", '{"bbox_2d": [100, 100, 300, 300]}', FRONT),
            *vqa("How many mugs are there?", str(frame % 3), WRIST),
            *vqa("How far is the mug?", f"0.{frame + 10} m", FRONT),
            *vqa("Is the mug left of the plate?", "yes", WRIST),
        ]
        for frame in (0, 4, FRAMES + 2)
    }
    root = add_language_rows(write_dataset(tmp_path_factory.mktemp("data") / "vqa"), [], events)
    kinds = itertools.cycle(("point", "box", "count", "object_distance", "relation"))
    write_question_kinds(
        root,
        [
            {"index": frame, "kind": next(kinds), "camera": one["camera"], "question": one["content"]}
            for frame, rows in events.items()
            for one in rows
            if one["role"] == "user"
        ],
    )
    return root


@pytest.fixture(scope="session")
def policy(questions: Path, tmp_path_factory) -> Path:
    """Checkpoint of a `gem` policy with random weights, whose answers differ from question to question."""
    from lerobot_gem.policies.gem.configuration_gem import GemConfig

    config = GemConfig(preset="tiny", device="cpu", dtype="float32", stage="joint", allow_untrained=True)
    config.depth.loss_weight = 0
    gem, *processors = build_policy(config, questions)
    folder = tmp_path_factory.mktemp("policy") / "pretrained_model"
    return Path(save(folder, warm(gem), *processors))


@pytest.fixture(scope="session")
def plain(policy: Path, tmp_path_factory) -> Path:
    """The same backbone as a folder of plain Qwen3-VL."""
    folder = tmp_path_factory.mktemp("plain") / "qwen"
    convert(ConvertConfig(SourceCheckpoint(str(policy)), folder))
    return folder
