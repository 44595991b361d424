"""The scripted policy solves wide placements and is a function of the state alone."""

from pathlib import Path

import numpy as np
import pytest

from lerobot_gem.simulation.placements import apply_benchmark, apply_wide, stream_rng
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace, make_scripted_policy

pytestmark = pytest.mark.libero


def steps_to_success(scene: LiberoScene, policy: ScriptedPickAndPlace, limit: int = 50) -> int | None:
    for step in range(limit):
        action = policy.action()
        assert action.shape == (7,) and action.dtype == np.float32 and np.abs(action).max() <= 1
        assert abs(action[-1]) == 1
        if scene.step(action):
            return step + 1
    return None


@pytest.mark.slow
def test_solves_wide_placements(scene: LiberoScene) -> None:
    lengths = []
    for number in range(4):
        apply_wide(scene, stream_rng("training", 7, number))
        lengths.append(steps_to_success(scene, make_scripted_policy(scene)))
    assert None not in lengths
    assert np.mean(lengths) < 40


def test_same_state_same_action(scene: LiberoScene) -> None:
    apply_wide(scene, stream_rng("training", 7, 0))
    policy = make_scripted_policy(scene)
    for _ in range(10):
        scene.step(policy.action())
    np.testing.assert_array_equal(policy.action(), make_scripted_policy(scene).action())
    np.testing.assert_array_equal(policy.action(), policy.action())


@pytest.mark.slow
def test_takes_the_bowl_out_of_the_drawer(libero: Path) -> None:
    scene = LiberoScene("libero_spatial", 4, control_freq=5, height=16, width=16)
    try:
        apply_benchmark(scene, 0)
        assert steps_to_success(scene, make_scripted_policy(scene)) is not None
    finally:
        scene.close()
