"""The simulated SO-101: what it draws, and that its scripted policy solves it."""

import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

FPS, SIZE = 5, 64


@pytest.fixture(scope="module")
def scene():
    from lerobot_gem.simulation.so101_scene import SO101Scene

    scene = SO101Scene(FPS, SIZE, SIZE)
    yield scene
    scene.close()


def test_the_expert_solves_every_layout(scene):
    for number in range(4):
        scene.reset(np.random.default_rng(number))
        for _ in range(12 * FPS):
            solved, is_over = scene.step(scene.expert_action())
            if is_over:
                break
        assert solved


def test_layouts_are_those_of_their_generator(scene):
    states = []
    for number in (1, 1, 2):
        scene.reset(np.random.default_rng(number))
        states.append(scene.draw("front", depth=False)[0])
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


def test_the_goal_is_to_be_seen_and_depth_is_metric(scene):
    scene.reset(np.random.default_rng(0))
    for camera in ("front", "side"):
        picture, depth = scene.draw(camera, depth=True)
        red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
        assert ((green > 1.5 * red) & (green > 1.5 * blue)).sum() > 5, camera
        assert picture.shape == (SIZE, SIZE, 3)
        assert 0.2 < depth.min() < 1
    # The side camera looks at the middle of the table from half a metre.
    assert depth[SIZE // 2, SIZE // 2] == pytest.approx(0.5, abs=0.15)


def test_states_are_degrees_and_the_opening_of_the_gripper(scene):
    scene.reset(np.random.default_rng(0))
    state = scene.state()
    assert state.shape == (6,)
    assert np.abs(state[:5]).max() < 5
    for _ in range(3):
        scene.step(np.array([0, 0, 0, 1]))
    assert scene.state()[5] > 80


def test_a_process_that_drew_ends_in_silence():
    program = (
        "import numpy as np; from lerobot_gem.simulation.so101_scene import SO101Scene; "
        f"scene = SO101Scene({FPS}, {SIZE}, {SIZE}); scene.reset(np.random.default_rng(0)); scene.draw('front', depth=False)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Exception ignored" not in ended.stderr
