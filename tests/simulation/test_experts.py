"""The scripted expert solves wide layouts and is a function of the state alone."""

from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.simulation.arm_poses import ArmPoses
from lerobot_gem.simulation.experts import PickAndPlaceExpert, make_expert
from lerobot_gem.simulation.placements import apply_benchmark, apply_wide, layout_rng, wide_layout
from lerobot_gem.simulation.scene import LiberoScene

pytestmark = pytest.mark.libero


def _steps_to_success(scene: LiberoScene, expert: PickAndPlaceExpert, limit: int = 50) -> int | None:
    for step in range(limit):
        action = expert.action()
        assert action.shape == (7,) and action.dtype == np.float32 and np.abs(action).max() <= 1
        assert abs(action[-1]) == 1
        if scene.step(action):
            return step + 1
    return None


def test_solves_wide_layouts(scene: LiberoScene) -> None:
    lengths = []
    for number in range(4):
        apply_wide(scene, layout_rng("training", 7, number))
        lengths.append(_steps_to_success(scene, make_expert(scene)))
    assert None not in lengths
    assert np.mean(lengths) < 40


def test_same_state_same_action(scene: LiberoScene) -> None:
    apply_wide(scene, layout_rng("training", 7, 0))
    expert = make_expert(scene)
    for _ in range(10):
        scene.step(expert.action())
    np.testing.assert_array_equal(expert.action(), make_expert(scene).action())
    np.testing.assert_array_equal(expert.action(), expert.action())


@pytest.mark.slow
def test_takes_the_bowl_out_of_the_drawer(libero: Path) -> None:
    scene = LiberoScene("libero_spatial", 4, control_freq=5, height=16, width=16)
    try:
        apply_benchmark(scene, 0)
        assert _steps_to_success(scene, make_expert(scene)) is not None
    finally:
        scene.close()


@pytest.mark.parametrize("holding", [False, True])
def test_solves_from_random_arm_poses(scene: LiberoScene, holding: bool) -> None:
    expert = make_expert(scene)
    poses = ArmPoses(scene, expert)
    for number in range(2):
        rng = layout_rng("training", 11, number)
        scene.place(wide_layout(scene, rng))
        assert (poses.place_holding if holding else poses.place_free)(rng)
        assert expert.held() == holding
        assert _steps_to_success(scene, expert) is not None


def test_an_arm_at_the_start_is_where_episodes_start(scene: LiberoScene) -> None:
    apply_wide(scene, layout_rng("training", 11))
    start = scene.eef_position.copy()
    poses = ArmPoses(scene, make_expert(scene))
    assert poses.place_free(np.random.default_rng(0))
    assert np.abs(scene.eef_position - start).max() > 0.02
    assert poses.place_at_start()
    assert np.abs(scene.eef_position - start).max() < 0.01  # settled a little, the first time
