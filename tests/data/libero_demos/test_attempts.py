"""One attempt at a time, in the simulator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lerobot_gem.data.libero_demos import attempts
from lerobot_gem.data.libero_demos.attempt_files import SCENES_PER_BATCH, Attempt, Recording
from lerobot_gem.data.libero_demos.attempts import (
    OpenScene,
    open_scene,
    simulate_demonstration,
    simulate_scenes,
)
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.simulation.naming import arrived
from lerobot_gem.storage.output_folder import OutputDataset


@pytest.fixture(scope="module")
def simulator(libero: Path) -> Iterator[None]:
    yield
    open_scene.close()


class _Scene:
    """Stands in for a LiberoScene; knows what it was made of and which are open."""

    are_open: list["_Scene"] = []

    def __init__(self, *settings: object):
        self.settings = settings
        self.are_open.append(self)

    def close(self) -> None:
        self.are_open.remove(self)


def test_a_process_keeps_one_scene_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "LiberoScene", _Scene)
    scenes = OpenScene()
    first = scenes.get("libero_object", 0, 5)
    assert scenes.get("libero_object", 0, 5) is first
    for settings in (("libero_object", 1, 5), ("libero_object", 1, 20)):
        other = scenes.get(*settings)
        assert other.settings == settings and _Scene.are_open == [other]
    scenes.close()
    assert not _Scene.are_open
    assert scenes.get("libero_object", 1, 20) is not other
    scenes.close()


@pytest.mark.slow
@pytest.mark.libero
@pytest.mark.usefixtures("simulator")
def test_noise_moves_the_arm_but_not_the_label(tmp_path: Path) -> None:
    config = LiberoDemosConfig(
        OutputDataset(tmp_path / "set"), fps=5, image_size=64, action_noise=0.1, random_start=True
    )
    for number in range(3):
        result = simulate_demonstration(config, Attempt(0, number))
        if result is not None:
            break
    assert result is not None
    frames = result.frames
    assert result.language is None
    starts = frames[0]["observation.state"][:3]
    assert np.linalg.norm(starts - [-0.148, 0, 0.261]) > 0.02
    # The scripted policy's straight lines: full deflection in one axis wherever it travels.
    largest = np.array([np.abs(frame["action"][:3]).max() for frame in frames])
    assert (largest > 0.999).mean() > 0.3


@pytest.mark.slow
@pytest.mark.libero
@pytest.mark.usefixtures("simulator")
def test_another_object_is_picked_up_and_named(tmp_path: Path) -> None:
    config = LiberoDemosConfig(
        OutputDataset(tmp_path / "set"), fps=5, image_size=64, depth=False, named_object="milk"
    )
    demonstration = simulate_demonstration(config, Attempt(0, 0))
    assert demonstration is not None
    assert demonstration.instruction == "pick up the milk and place it in the basket"
    scene = open_scene.get("libero_object", 0, 5, 64, 64, False, None)
    assert arrived(scene, "milk_1") and not scene.success
    assert simulate_scenes(config, Attempt(0, 0, scenes=2)).instruction == demonstration.instruction


def batch_of_scenes(tmp_path: Path, **options: Any) -> Recording:
    """Scenes of the first task."""
    config = LiberoDemosConfig(
        OutputDataset(tmp_path / "set"), fps=5, image_size=64, mode="scenes", scenes_per_task=1, **options
    )
    return simulate_scenes(config, Attempt(0, 0, SCENES_PER_BATCH))


@pytest.mark.slow
@pytest.mark.libero
@pytest.mark.usefixtures("simulator")
def test_each_scene_draws_its_camera_and_ground(tmp_path: Path) -> None:
    recording = batch_of_scenes(tmp_path, camera_turn=[-20.0, 20.0], table_height=[0.0, 0.06])
    # The far corners of a camera's depth see ground and walls alone: they differ where camera or ground do.
    corners = np.array([frame["observation.images.image_depth"][0, :, 0] for frame in recording.frames])
    assert np.abs(np.diff(corners, axis=0)).max(axis=1).min() > 1e-3
    # The arm's lowest poses follow the ground.
    assert min(frame["observation.state"][2] for frame in recording.frames) > 0.02


@pytest.mark.slow
@pytest.mark.libero
@pytest.mark.usefixtures("simulator")
def test_every_fourth_scene_is_asked_about(tmp_path: Path) -> None:
    languages = batch_of_scenes(tmp_path, qa=QuestionsConfig(scene_interval=4)).language
    assert languages is not None
    asked = [number for number, language in enumerate(languages) if language.questions]
    assert asked == list(range(0, len(languages), 4))
    assert all(language.subtask for language in languages)
