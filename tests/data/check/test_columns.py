"""Facts from columns, against the dataset that was written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.check.columns import (
    language_rows,
    padding,
    tasks,
    texts_of_frames,
    vector_facts,
    vectors,
)
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.storage.language_columns import row
from tests.conftest import CAMERAS, EPISODES, FRAMES, TASKS, add_language_rows, build_policy, write_dataset

POLICY = GemVLAConfig(preset="tiny", device="cpu")


def load(root: Path, **options) -> LeRobotDataset:
    return LeRobotDataset("local/noise", root=root, **options)


def test_tasks_with_their_episodes_and_frames(dataset_root: Path):
    found = [(task.text, task.episodes, task.frames) for task in tasks(load(dataset_root))]
    assert found == [(TASKS[0], 2, 2 * FRAMES), (TASKS[1], 1, FRAMES)]


@pytest.mark.parametrize("chunk_size", [1, 4, 10, 32])
def test_padding_is_the_share_of_actions_that_lerobot_pads(dataset_root: Path, chunk_size: int):
    dataset = load(dataset_root, delta_timestamps={"action": [i / 5 for i in range(chunk_size)]})
    padded = [dataset[i]["action_is_pad"].float().mean() for i in range(FRAMES)]
    assert padding(dataset, chunk_size) == pytest.approx(float(np.mean(padded)))


def test_persistent_rows_are_counted_once_per_episode(tmp_path: Path):
    root = write_dataset(tmp_path / "data")
    persistent = [
        row("assistant", "reach", "subtask", timestamp=0.0),
        row("assistant", "hm", "memory", timestamp=0.0),
    ]
    add_language_rows(root, persistent, {7: [row("user", "Where?", "vqa", CAMERAS[0])]})
    found, messages = language_rows(load(root))
    assert messages is None
    assert [(row.column, row.style, row.role, row.camera, row.count) for row in found] == [
        ("language_events", "vqa", "user", CAMERAS[0], 1),
        ("language_persistent", "memory", "assistant", None, EPISODES),
        ("language_persistent", "subtask", "assistant", None, EPISODES),
    ]
    assert np.flatnonzero(texts_of_frames(load(root))).tolist() == [7]


def test_empty_messages_are_no_text(tmp_path: Path):
    dataset = load(write_dataset(tmp_path / "data", messages="[]"))
    assert language_rows(dataset) == ([], 0)
    assert not texts_of_frames(dataset).any()


def test_ranges_are_those_of_the_data(dataset_root: Path):
    dataset = load(dataset_root)
    action, state = vector_facts(dataset, POLICY)
    values = np.stack([dataset[i]["action"] for i in range(EPISODES * FRAMES)])
    assert action.minimum == pytest.approx(values.min(axis=0)) and action.maximum == pytest.approx(
        values.max(axis=0)
    )
    assert (action.still, action.stale, action.not_finite, action.has_stats) == ([], [], 0, True)
    assert state.names == [str(i) for i in range(8)]
    assert vectors(dataset)["observation.state"].shape == (EPISODES * FRAMES, 8)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["x", "y", "z", "a", "b", "c", "grip"], ["x", "y", "z", "a", "b", "c", "grip"]),
        ({"arm": ["x", "y", "z", "a", "b", "c"], "hand": ["grip"]}, ["x", "y", "z", "a", "b", "c", "grip"]),
        ({name: place for place, name in enumerate("abcdefg")}, list("abcdefg")),
        ({"arm": ["x", "y"]}, list("0123456")),
        (["x", "y"], list("0123456")),
        (None, list("0123456")),
    ],
)
def test_dimensions_have_the_names_of_the_dataset(dataset_root: Path, names: object, found: list[str]):
    dataset = load(dataset_root)
    dataset.meta.features["action"]["names"] = names
    assert vector_facts(dataset, POLICY)[0].names == found


def test_statistics_of_other_data_are_noticed(dataset_root: Path, tmp_path: Path):
    root = shutil.copytree(dataset_root, tmp_path / "copy")
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    stats["action"]["max"][2] = 5.0
    del stats["observation.state"]
    file.write_text(json.dumps(stats))
    action, state = vector_facts(load(root), POLICY)
    assert action.stale == ["2"]
    assert not state.has_stats
    # A choice of episodes has a smaller range than the whole.
    assert vector_facts(load(root, episodes=[0]), POLICY)[0].stale == []
    stats["action"] |= {"min": [0.0] * 3, "max": [1.0] * 3}
    file.write_text(json.dumps(stats))
    action, _ = vector_facts(load(root), POLICY)
    assert action.stale == action.names


def test_what_stands_still_is_what_the_policy_reads_as_its_mean(dataset_root: Path, tmp_path: Path):
    root = shutil.copytree(dataset_root, tmp_path / "copy")
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    stats["observation.state"]["max"][2] = stats["observation.state"]["min"][2] + 1e-4
    file.write_text(json.dumps(stats))
    _, state = vector_facts(load(root), POLICY)
    assert (state.still, state.is_still_read) == (["2"], False)
    policy, *_ = build_policy(GemVLAConfig(preset="tiny", device="cpu", dtype="float32"), root)
    assert policy.config.limits.still == (2,)
    raw = GemVLAConfig(preset="tiny", device="cpu", outlier_limit=None)
    assert vector_facts(load(root), raw)[1].is_still_read
