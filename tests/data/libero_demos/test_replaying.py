"""Recorded demonstrations shown again: what was recorded comes back, with depth."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.libero_demos.attempts import open_scene
from lerobot_gem.data.libero_demos.collecting import collect
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.source_files import moving_frames
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.storage.output_folder import OutputDataset
from tests.data.libero_demos.recorded_source import FPS, Demonstration, record, write_source

pytestmark = [pytest.mark.slow, pytest.mark.libero]
SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def simulator(libero: Path) -> Iterator[None]:
    yield
    open_scene.close()


@dataclass
class Source:
    """A recorded task: its folder of files, and what they hold."""

    suite: str
    task_id: int
    folder: Path
    demonstrations: list[Demonstration]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A demonstration that succeeds, and one that was broken off, among fixtures."""
    suite, task_id = "libero_spatial", 4
    scene = LiberoScene(suite, task_id, FPS, SIZE, SIZE)
    for fixture in scene.env.fixtures_dict.values():
        # LIBERO draws a fixture's place when it builds a model; no state holds it.
        scene.env.sim.model.body_pos[scene.env.sim.model.body_name2id(fixture.root_body)][0] += 0.01
    demonstrations = [record(scene, 0, longest=10), record(scene, 0)]
    folder = tmp_path_factory.mktemp(suite)
    write_source(folder, scene, demonstrations)
    scene.close()
    return Source(suite, task_id, folder, demonstrations)


def _config(source: Source, root: Path, **change) -> LiberoDemosConfig:
    return LiberoDemosConfig(
        OutputDataset(root),
        source=source.folder,
        suite=source.suite,
        task_ids=[source.task_id],
        image_size=SIZE,
        **change,
    )


def _check(dataset: LeRobotDataset, recorded: Demonstration, frames: list[int]) -> None:
    """A dataset of one episode against the frames of a recording."""
    assert dataset.num_episodes == 1 and len(dataset) == len(frames)
    for place, index in enumerate(frames):
        item = dataset[place]
        np.testing.assert_array_equal(item["action"], recorded.actions[index].astype(np.float32))
        for key, expected in recorded.frames[index].items():
            found = item[key].numpy()
            if key == "observation.state":
                np.testing.assert_allclose(found, expected, atol=1e-6)
                continue
            found = found.transpose(1, 2, 0)
            if expected.dtype == np.uint8:
                found = np.round(found * 255)
            # The places of fixtures are kept to six digits: to 1e-6 m, which moves the edges of a few pixels.
            apart = np.abs(found - expected.astype(np.float64))
            assert (apart > (1e-4 if key.endswith("_depth") else 1)).mean() < 1e-3, (key, index)


def test_what_was_recorded_comes_back_and_a_failure_does_not(source: Source, tmp_path: Path) -> None:
    root = tmp_path / "set"
    [report] = collect(_config(source, root, qa=QuestionsConfig(questions_per_image=12)))
    assert (report.successes, report.attempts) == (1, 2)
    recorded = source.demonstrations[1]
    dataset = LeRobotDataset("local/x", root=root, depth_output_unit="m")
    assert dataset.fps == FPS and dataset[0]["task"] == report.instruction
    # The recording ends with ten frames in which nothing is done.
    frames = moving_frames(recorded.actions)
    assert len(recorded.actions) - len(frames) >= 10
    _check(dataset, recorded, frames)
    report = json.loads((root / "collection.json").read_text())
    assert report["settings"]["drop_noops"] and report["settings"]["source"] == str(source.folder)
    asked = report["questions"]
    assert all(asked[kind]["questions"] for kind in ("point", "object_distance", "affordance", "progress"))
    steps = dataset.hf_dataset.with_format(None)[0]["language_persistent"]
    assert [step["content"].split()[0] for step in steps][:2] == ["Move", "Lower"] and len(steps) >= 5


def test_every_frame_can_be_kept(source: Source, tmp_path: Path) -> None:
    root = tmp_path / "set"
    collect(_config(source, root, drop_noops=False))
    recorded = source.demonstrations[1]
    dataset = LeRobotDataset("local/x", root=root, depth_output_unit="m")
    _check(dataset, recorded, list(range(len(recorded.actions))))


def test_a_file_of_another_task_is_refused(source: Source, tmp_path: Path) -> None:
    other = Source(source.suite, source.task_id, tmp_path, [])
    [file] = source.folder.iterdir()
    (tmp_path / file.name).write_bytes(file.read_bytes())
    import h5py

    with h5py.File(tmp_path / file.name, "a") as stream:
        group = stream["data/demo_0"]
        group.attrs["model_file"] = group.attrs["model_file"].replace("_1_joint0", "_9_joint0")
    with pytest.raises(ValueError, match="was recorded with another model than the installed LIBERO builds"):
        collect(_config(other, tmp_path / "set"))


def test_a_task_without_scripted_policy_is_told_in_hindsight(tmp_path: Path) -> None:
    """Someone, whom we leave out, opens a drawer that the goal does not mention, and then turns on the stove."""
    scene = LiberoScene("libero_goal", 7, FPS, SIZE, SIZE)
    assert scene.goal == [["turnon", "flat_stove_1"]]
    model = scene.env.sim.model._model
    drawer, knob = (
        model.joint(name).qposadr[0] for name in ("wooden_cabinet_1_top_level", "flat_stove_1_button")
    )
    states, actions, frames = [], [], []
    for number in range(40):
        state = scene.init_states[0].copy()
        # Behind the time stand the positions.
        state[1 + drawer] = -0.16 * min(number / 15, 1)
        state[1 + knob] = 1.0 * max(number - 25, 0) / 10
        scene.show(state)
        states.append(state)
        actions.append(np.array([0.1, 0, 0, 0, 0, 0, -1.0]))
        frames.append(scene.observation(depth=True))
    recorded = Demonstration(np.stack(states), np.stack(actions), frames)
    write_source(tmp_path / "source", scene, [recorded])
    scene.close()
    root = tmp_path / "set"
    collect(
        _config(
            Source("libero_goal", 7, tmp_path / "source", []),
            root,
            qa=QuestionsConfig(questions_per_image=12),
        )
    )
    dataset = LeRobotDataset("local/x", root=root, depth_output_unit="m")
    _check(dataset, recorded, list(range(40)))
    steps = dataset.hf_dataset.with_format(None)[0]["language_persistent"]
    assert [step["content"] for step in steps] == [
        "Open the top drawer of the wooden cabinet.",
        "Turn on the stove.",
    ]
    asked = json.loads((root / "collection.json").read_text())["questions"]
    assert asked["affordance"]["questions"] == 0
    assert min(asked[kind]["questions"] for kind in ("point", "nearer", "subtask", "progress")) > 0
    # LIBERO shows a stove that is on by its red plate.
    red = [frame["observation.images.image"].astype(int) for frame in (frames[0], frames[-1])]
    assert ((red[1] - red[0])[..., 0] > 60).sum() > 10
