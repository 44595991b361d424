"""Renaming features: LeRobot reads the copy, and nothing but names has changed."""

import json
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.processing.language import parse_messages
from lerobot_gem.storage.language_columns import question_rows, row
from lerobot_gem.storage.language_rows import LanguageTable
from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.storage.output_folder import OutputDataset
from lerobot_gem.storage.question_kinds import read_question_kinds, write_question_kinds
from lerobot_gem.storage.renaming import RenameConfig, rename_features
from tests.conftest import CAMERAS, add_language_rows, write_dataset

NAMES = {
    "image": "observation.images.image",
    "clip": "observation.images.clip",
    "state": "observation.state",
    "actions": "action",
}


@pytest.fixture(scope="module")
def openpi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys as openpi writes them, one camera as images and one as video."""
    root, random = tmp_path_factory.mktemp("renaming") / "openpi", np.random.default_rng(0)
    image = {"dtype": "image", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    features = {"image": image, "clip": {**image, "dtype": "video"}}
    features |= {name: {"dtype": "float32", "shape": (3,), "names": None} for name in ("state", "actions")}
    dataset = LeRobotDataset.create("local/openpi", root=root, fps=10, features=features, use_videos=True)
    for _ in range(2):
        for _ in range(4):
            frame = {name: random.integers(0, 255, (64, 64, 3), np.uint8) for name in ("image", "clip")}
            frame |= {name: random.uniform(-1, 1, 3).astype("float32") for name in ("state", "actions")}
            dataset.add_frame({**frame, "task": "pick"})
        dataset.save_episode()
    dataset.finalize()
    return root


def config(source: Path, output: Path, names: dict[str, str], overwrite: bool = False) -> RenameConfig:
    return RenameConfig(DatasetOptions("local/openpi", source), OutputDataset(output), names, overwrite)


def test_lerobot_reads_the_copy(openpi: Path, tmp_path: Path) -> None:
    rename_features(config(openpi, tmp_path / "set", NAMES))
    before, after = (LeRobotDataset("local/x", root=root) for root in (openpi, tmp_path / "set"))
    assert after.meta.features == {
        NAMES.get(name, name): feature for name, feature in before.meta.features.items()
    }
    assert after.meta.stats.keys() == {NAMES.get(name, name) for name in before.meta.stats}
    assert set(after.meta.camera_keys) == {"observation.images.image", "observation.images.clip"}
    assert not any(name in column.split("/") for name in NAMES for column in after.meta.episodes.column_names)
    for index in (0, 5):
        one, other = before[index], after[index]
        assert other.keys() == {NAMES.get(name, name) for name in one}
        for name, value in one.items():
            assert np.array_equal(value, other[NAMES.get(name, name)]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_videos_can_be_exchanged_and_chained(tmp_path: Path) -> None:
    first, second = CAMERAS
    root = write_dataset(tmp_path / "videos", storage="video")
    for names in ({first: second, second: first}, {first: second, second: "observation.images.third"}):
        rename_features(config(root, tmp_path / "set", names, overwrite=True))
        before, after = (LeRobotDataset("local/x", root=folder)[3] for folder in (root, tmp_path / "set"))
        for old, new in names.items():
            assert np.array_equal(before[old], after[new])
        assert {path.name for path in (tmp_path / "set" / "videos").iterdir()} == set(names.values())


def test_questions_go_with_their_cameras(tmp_path: Path) -> None:
    """The cameras are stored as images: nothing else would notice that they were exchanged."""
    first, second = CAMERAS
    messages = [{"role": "user", "content": f"Where is {first}?", "camera": first, "depth": {"bits": 8}}]
    messages.append({"role": "assistant", "content": "Here."})
    root = write_dataset(tmp_path / "asked", messages=json.dumps(messages))
    events = {2: question_rows([(first, "Where?", "Here."), (second, "What?", "That.")]), 3: []}
    add_language_rows(root, [row("assistant", "go", "subtask", first, timestamp=0.0)], events)
    question = {"index": 2, "kind": "point", "camera": first, "question": "Where?", "answer": "Here."}
    write_question_kinds(root, [question])
    third = "observation.images.third"
    for names in ({first: second, second: first}, {first: third}):
        rename_features(config(root, tmp_path / "set", names, overwrite=True))
        language, old = (
            LanguageTable(LeRobotDatasetMetadata("local/x", folder)) for folder in (tmp_path / "set", root)
        )
        for index in range(4):
            for was, now in zip(old.rows(index), language.rows(index), strict=True):
                assert now == [{**one, "camera": names.get(one["camera"], one["camera"])} for one in was]
        [asked, answer] = parse_messages(LeRobotDataset("local/x", tmp_path / "set")[5]["messages"])
        assert asked == {**messages[0], "camera": names[first]} and answer == messages[1]
        assert read_question_kinds(tmp_path / "set") == {(2, names[first], "Where?"): "point"}


def test_messages_that_name_no_renamed_camera_stay_as_they_are(tmp_path: Path) -> None:
    written = '[{"role":"user",  "content":"caf\u00e9?"}, {"role":"assistant","content":"yes"}]'
    root = write_dataset(tmp_path / "asked", messages=written)
    rename_features(config(root, tmp_path / "set", {CAMERAS[0]: "observation.images.third"}))
    assert LeRobotDataset("local/x", tmp_path / "set")[0]["messages"] == written


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"timestamp": "time"}, "LeRobot looks for timestamp by name"),
        ({"state": "index", "image": "task_index"}, "LeRobot looks for index, task_index by name"),
        ({"image": "images/front"}, r"\['images/front'\] has a slash"),
    ],
)
def test_names_that_lerobot_could_not_read(tmp_path: Path, names: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(tmp_path, tmp_path / "set", names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"picture": "image"}, r"no \['picture'\].*expected some of \['action"),
        ({"state": "actions"}, r"\['actions'\] would be the name of two features"),
    ],
)
def test_wrong_names(openpi: Path, tmp_path: Path, names: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rename_features(config(openpi, tmp_path / "set", names))
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="--overwrite=true"):
        rename_features(config(openpi, openpi, NAMES))
