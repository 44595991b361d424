"""What is said of datasets that LeRobot would not open."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.storage.opening import (
    DatasetOptions,
    open_dataset,
    open_metadata,
    require_current_format,
)
from tests.conftest import EPISODES, FRAMES


def _write(root: Path, version: str) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps({"codebase_version": version}))
    return root


def test_a_current_dataset_and_one_on_the_hub_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lerobot.utils.constants.HF_LEROBOT_HOME", tmp_path / "home")
    root = _write(tmp_path / "set", "v3.0")
    assert require_current_format("you/set", root) == root
    assert require_current_format("you/set", None) == tmp_path / "home" / "you" / "set"


def test_a_folder_without_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"No dataset in {tmp_path}: .*meta/info.json.*repo id"):
        require_current_format("you/set", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("version", "advice"), [("v2.1", "--push-to-hub=false`."), ("v2.0", "bring it to v2.1")]
)
def test_an_older_format_names_the_converter_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, advice: str
) -> None:
    monkeypatch.setattr("lerobot.utils.constants.HF_LEROBOT_HOME", tmp_path)
    root = _write(tmp_path / "you" / "set", version)
    for given in (root, None):
        with pytest.raises(ValueError, match=rf"format {version}.*convert_dataset_v21_to_v30") as caught:
            require_current_format("you/set", given)
        assert f"--repo-id=you/set --root={root}" in str(caught.value) and advice in str(caught.value)


# -- opening -------------------------------------------------------------------------------------------------------------


def test_some_episodes_are_opened(depth_dataset_root: Path) -> None:
    options = DatasetOptions("local/noise", depth_dataset_root, [0, 2])
    assert open_metadata(options).total_episodes == EPISODES
    dataset = open_dataset(options, depth_output_unit="m")
    assert len(dataset) == 2 * FRAMES and int(dataset[FRAMES]["episode_index"]) == 2
    [key, _] = dataset.meta.depth_keys
    assert dataset[0][key].max() < 10


@pytest.mark.parametrize("episodes", [[], [0, EPISODES], [-1]])
def test_episodes_that_are_not_there(dataset_root: Path, episodes: list[int]) -> None:
    with pytest.raises(
        ValueError, match=rf"episodes=.* of 'local/noise': expected some of 0 to {EPISODES - 1}"
    ):
        open_dataset(DatasetOptions("local/noise", dataset_root, episodes))


def test_a_dataset_that_can_not_be_downloaded() -> None:
    for opened in (open_metadata, open_dataset):
        with pytest.raises(OSError, match=r"Can't read the dataset 'nobody/no-such-dataset'.*--dataset.root"):
            opened(DatasetOptions("nobody/no-such-dataset"))


def test_a_dataset_without_frames(tmp_path: Path) -> None:
    features = {"action": {"dtype": "float32", "shape": (2,), "names": None}}
    LeRobotDataset.create("local/x", fps=5, root=tmp_path / "empty", features=features, use_videos=False)
    with pytest.raises(ValueError, match="'local/x' has no frames"):
        open_dataset(DatasetOptions("local/x", tmp_path / "empty"))


# -- a folder that is not whole ------------------------------------------------------------------------------------------


@pytest.fixture
def copy(dataset_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(dataset_root, tmp_path / "copy")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("data/chunk-000/file-000.parquet", r"lacks data/chunk-000/file-000.parquet \(episode 0\)"),
        ("meta/tasks.parquet", "has no meta/tasks.parquet, though meta/info.json says total_tasks=2"),
        ("meta/episodes/chunk-000/file-000.parquet", r"has no meta/episodes/\*/\*.parquet"),
    ],
)
def test_missing_files_are_named_and_the_hub_is_not_asked(copy: Path, missing: str, message: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        open_dataset(DatasetOptions("local/noise", copy))


def test_counts_that_differ(copy: Path) -> None:
    file = copy / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"total_episodes": 5}))
    with pytest.raises(ValueError, match=f"says total_episodes=5, but meta/episodes has {EPISODES}"):
        open_metadata(DatasetOptions("local/noise", copy))


def test_rows_that_are_not_where_the_metadata_says(copy: Path) -> None:
    [data] = copy.glob("data/*/*.parquet")
    table = pq.read_table(data)
    shifted = pa.array([one + 1 for one in table["index"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("index"), "index", shifted), data)
    with pytest.raises(ValueError, match="has index=.* which meta/episodes places"):
        open_dataset(DatasetOptions("local/noise", copy))


def test_a_damaged_file_is_a_dataset_that_can_not_be_read(copy: Path) -> None:
    [data] = copy.glob("data/*/*.parquet")
    content = data.read_bytes()
    stats = copy / "meta" / "stats.json"
    for damage in (lambda: data.write_bytes(content[:-50]), lambda: stats.write_text("[" * 200_000)):
        damage()
        with pytest.raises(
            OSError, match=f"Can't read the dataset 'local/noise': .*{copy}.*: copy or record it again"
        ):
            open_dataset(DatasetOptions("local/noise", copy))
        data.write_bytes(content)


def test_a_description_that_is_no_json(copy: Path) -> None:
    (copy / "meta" / "info.json").write_text("{")
    with pytest.raises(ValueError, match="info.json can't be read .*as JSON"):
        open_metadata(DatasetOptions("local/noise", copy))
