"""The language of a dataset on disk."""

import shutil
from pathlib import Path

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.storage.language_columns import row
from lerobot_gem.storage.language_rows import LanguageTable, has_language, names_places
from tests.conftest import CAMERAS, EPISODES, FRAMES, add_language_rows, vqa, write_dataset
from tests.storage.test_dataset_agreement import meta_of

FRONT, _ = CAMERAS


def test_the_table_finds_the_rows_of_a_frame_by_its_index(tmp_path):
    subtask = row("assistant", "reach", "subtask", timestamp=0.0)
    events = {index: vqa(f"question {index}", "yes") for index in (0, 7, EPISODES * FRAMES - 1)}
    root = add_language_rows(write_dataset(tmp_path / "data"), [subtask], events)
    table = LanguageTable(meta_of(root))
    for index in range(EPISODES * FRAMES):
        persistent, found = table.rows(index)
        assert [entry["content"] for entry in persistent] == ["reach"]
        assert [entry["content"] for entry in found] == [entry["content"] for entry in events.get(index, [])]


def test_rows_about_a_camera_that_the_dataset_lacks_are_named_at_once(tmp_path):
    events = {3: vqa("Where?", "There.", "observation.images.top")}
    root = add_language_rows(write_dataset(tmp_path / "data"), [], events)
    with pytest.raises(ValueError, match=r"\['observation.images.top'\] in the rows of 'language_events'"):
        LanguageTable(meta_of(root))


@pytest.mark.parametrize(
    ("answer", "is_place"),
    [
        ("There.", False),
        ("2, perhaps 3 (or 4)", False),
        ('{"point_2d": [500, 400]}', True),
        ("At [[120, 40, 300, 90]].", True),
        ("(0.25, 0.5)", True),
        ("<box>(1,2),(3,4)</box>", True),
    ],
)
def test_places_in_language_rows(dataset_root: Path, tmp_path: Path, answer: str, is_place: bool) -> None:
    root = shutil.copytree(dataset_root, tmp_path / "copy")
    add_language_rows(root, [], {7: vqa("Where?", answer)})
    assert names_places(LeRobotDataset("local/noise", root=root).meta) is is_place
    assert not names_places(LeRobotDataset("local/noise", root=dataset_root).meta)


def test_columns_without_any_text_are_no_language(dataset_root: Path, tmp_path: Path) -> None:
    assert not has_language(meta_of(dataset_root))
    assert not has_language(meta_of(write_dataset(tmp_path / "empty", messages="[]")))
    assert not has_language(meta_of(add_language_rows(write_dataset(tmp_path / "none"), [], {})))
    assert has_language(
        meta_of(add_language_rows(write_dataset(tmp_path / "one"), [], {3: vqa("Where?", "There.")}))
    )
