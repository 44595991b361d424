"""What may be collected, and which settings a continuation must share."""

import math
from pathlib import Path

import pytest

from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.storage.output_folder import OutputDataset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"placement": "tight"}, "placement='tight' is unknown: expected one of 'benchmark', 'wide'"),
        ({"fps": 0}, "fps=0: expected at least 1"),
        ({"num_workers": 0}, "num_workers=0: expected at least 1"),
        ({"seed": -1}, "seed=-1: expected at least 0"),
        ({"action_noise": -0.1}, "action_noise=-0.1: expected at least 0"),
        ({"action_noise": math.nan}, "action_noise=nan: expected at least 0"),
        ({"episodes_per_task": 0}, "nothing to collect"),
        ({"mode": "frames"}, "mode='frames' is unknown: expected one of 'demonstrations', 'scenes'"),
        ({"camera_turn": [5.0]}, r"camera_turn=\[5.0\]: expected one number, or"),
        (
            {"placement": "benchmark", "table_height": 0.04},
            "change wide placements, but placement is benchmark",
        ),
        ({"mode": "scenes"}, "say how many with --scenes_per_task"),
        (
            {"mode": "scenes", "scenes_per_task": 9, "episodes_per_task": 10, "placement": "benchmark"},
            "episodes_per_task=10, placement=benchmark can't be combined with mode=scenes",
        ),
        ({"source": "demos", "placement": "benchmark"}, "placement=benchmark can't be combined with source"),
        ({"source": "demos", "mode": "scenes"}, "mode=scenes can't be combined with source"),
        ({"named_object": "milk", "qa": QuestionsConfig()}, "Questions are about the task's own object"),
        ({"source": "demos", "named_object": "milk"}, "named_object=milk can't be combined with source"),
        ({"resume": True, "overwrite": True}, "contradict"),
        (
            {"source": "demos", "scenes_per_task": 3},
            "scenes_per_task=3 can't be combined with source='demos'",
        ),
        (
            {"source": "demos", "action_noise": 0.1, "random_start": True},
            "action_noise=0.1, random_start=True can't",
        ),
    ],
)
def test_wrong_settings(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiberoDemosConfig(OutputDataset(tmp_path / "set"), **change)


def test_a_continuation_may_go_elsewhere_take_more_workers_and_want_more(tmp_path: Path) -> None:
    one = LiberoDemosConfig(OutputDataset(tmp_path / "a"))
    other = LiberoDemosConfig(
        OutputDataset(tmp_path / "b", "me/b"),
        task_ids=[3],
        episodes_per_task=9,
        scenes_per_task=9,
        num_workers=4,
        resume=True,
    )
    assert one.content() == other.content()


def test_a_source_is_part_of_what_decides_an_attempt_and_nothing_without_one(tmp_path: Path) -> None:
    output = OutputDataset(tmp_path / "a")
    settings = LiberoDemosConfig(output, source=Path("demos"), drop_noops=False).content()
    assert settings["source"] == "demos" and settings["drop_noops"] is False
    assert not {"placement", "action_noise", "camera_turn", "random_start"} & set(settings)
    # An interrupted collection of an earlier version can still be continued.
    assert not {"source", "drop_noops"} & set(LiberoDemosConfig(output).content())


def test_scenes_alone_say_nothing_of_demonstrations(tmp_path: Path) -> None:
    for given in ({}, {"episodes_per_task": 0}):
        config = LiberoDemosConfig(OutputDataset(tmp_path), mode="scenes", scenes_per_task=9, **given)
        assert config.episodes_per_task == 0
        assert not {"placement", "action_noise", "random_start"} & set(config.content())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"fps": 5},
        {"image_size": 64},
        {"camera_turn": [-20.0, 20.0]},
        {"qa": QuestionsConfig()},
        {"mode": "scenes", "scenes_per_task": 1},
    ],
)
def test_what_decides_an_attempt_must_stay(tmp_path: Path, change: dict) -> None:
    output = OutputDataset(tmp_path / "a")
    assert LiberoDemosConfig(output).content() != LiberoDemosConfig(output, **change).content()
