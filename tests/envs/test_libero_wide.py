"""The environment behind `--env.type=libero_wide`, as lerobot-eval uses it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lerobot.envs.utils import NEW_ROLLOUT_OPTION

from lerobot_gem.envs.configuration_libero_wide import LiberoWideEnvConfig
from lerobot_gem.simulation.scripted_policies import make_scripted_policy
from tests.envs.test_configuration_libero_wide import parse


@pytest.mark.libero
def test_wrong_names_are_errors(libero: Path) -> None:
    with pytest.raises(ValueError, match="no wide placements for libero_goal"):
        LiberoWideEnvConfig(task="libero_goal").create_envs(1)
    with pytest.raises(
        ValueError, match="control_mode='both' is unknown: expected one of 'relative', 'absolute'"
    ):
        LiberoWideEnvConfig(control_mode="both").create_envs(1)


@pytest.mark.libero
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            [0, 3, 6],
            "named_object='milk' is not in libero_object task 3, libero_object task 6: no object is in all chosen tasks, but alphabet soup",
        ),
        (
            [2, 3],
            "'milk' is not in libero_object task 3: all chosen tasks have .*ketchup, salad dressing.* or other task_ids",
        ),
    ],
)
def test_an_object_that_a_later_task_lacks_is_named_before_the_first_is_evaluated(
    libero: Path, tasks: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LiberoWideEnvConfig(task_ids=tasks, named_object="milk").create_envs(1)
    made = LiberoWideEnvConfig(task_ids=[0, 2], named_object="milk").create_envs(1)["libero_object"]
    assert list(made) == [0, 2]


@pytest.fixture(scope="module")
def env(libero: Path) -> Iterator:
    env = parse().create_envs(n_envs=1)["libero_object"][1]
    yield env
    env.close()


@pytest.mark.libero
def test_placement_depends_on_the_seed_alone(env) -> None:
    first, _ = env.reset(seed=[3])
    env.step(np.ones((1, 7), np.float32))
    other, _ = env.reset(seed=[4])
    again, _ = env.reset(seed=[3])
    for camera in ("image", "image2"):
        np.testing.assert_array_equal(first["pixels"][camera], again["pixels"][camera])
    assert np.abs(first["pixels"]["image"].astype(int) - other["pixels"]["image"]).mean() > 1
    np.testing.assert_array_equal(first["robot_state"]["eef"]["pos"], again["robot_state"]["eef"]["pos"])


@pytest.mark.libero
def test_steps_renders_and_reports(env) -> None:
    observation, _ = env.reset(seed=[0])
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = env.step(np.zeros((1, 7), np.float32))
    assert env.observation_space.contains(observation)
    assert not terminated[0] and not truncated[0] and reward[0] == 0 and not info["is_success"][0]
    assert env.call("task_description")[0] == "pick up the cream cheese and place it in the basket"
    assert env.call("_max_episode_steps")[0] == 3
    assert env.metadata["render_fps"] == 5
    image = env.call("render")[0]
    np.testing.assert_array_equal(image[::-1, ::-1], observation["pixels"]["image"][0])


@pytest.mark.libero
def test_blank_images_blind_the_policy_but_not_the_video(env) -> None:
    inner = env.envs[0].unwrapped
    inner.blank_images = True
    try:
        observation, _ = env.reset(seed=[0])
        assert not any(image.any() for image in observation["pixels"].values())
        assert observation["robot_state"]["eef"]["pos"].any()
        assert env.call("render")[0].any()
    finally:
        inner.blank_images = False


@pytest.mark.libero
def test_changes_reach_the_scene_and_leave_the_layout(env) -> None:
    plain, _ = env.reset(seed=[3])
    poses = [env.envs[0].unwrapped._scene.pose(name) for name in env.envs[0].unwrapped._scene.objects]
    config = parse("--env.camera_turn=-15", "--env.table_height=0.04", "--env.distractors=1")
    changed_env = config.create_envs(n_envs=1)["libero_object"][1]
    try:
        changed, _ = changed_env.reset(seed=[3])
        scene = changed_env.envs[0].unwrapped._scene
        assert (scene.camera_turn, scene.ground, len(scene.distractors)) == (-15.0, 0.04, 1)
        for pose, name in zip(poses, scene.objects, strict=False):
            np.testing.assert_allclose(scene.pose(name)[:2], pose[:2], atol=1e-3)
    finally:
        changed_env.close()
    assert np.abs(changed["pixels"]["image"].astype(int) - plain["pixels"]["image"]).mean() > 10


@pytest.fixture(scope="module")
def listening(libero: Path) -> Iterator:
    config = parse("--env.named_object=other", "--env.episode_length=80")
    env = config.create_envs(n_envs=1)["libero_object"][1]
    yield env
    env.close()


@pytest.mark.libero
@pytest.mark.parametrize("listens", [True, False])
def test_an_expert_goes_to_the_object_that_it_is_told(env, listening, listens: bool) -> None:
    inner, outcomes = listening.envs[0].unwrapped, []
    for seed in (0, 1, 2):
        listening.reset(seed=[seed], options={NEW_ROLLOUT_OPTION: True})
        scene = inner._scene
        if seed == 0:  # on the same layout as without
            env.reset(seed=[seed])
            for name in scene.objects:
                same = env.envs[0].unwrapped._scene.pose(name)
                np.testing.assert_allclose(scene.pose(name), same, atol=1e-9)
        assert inner.named != "cream_cheese_1"
        named = inner.named.removesuffix("_1").replace("_", " ")
        assert listening.call("task_description")[0] == f"pick up the {named} and place it in the basket"
        policy = make_scripted_policy(scene, inner.named if listens else None)
        for _ in range(80):
            _, reward, terminated, _, info = listening.step(policy.action()[None])
            if terminated[0]:
                break
        outcomes.append((reward[0], bool(info["is_success"][0]) if terminated[0] else None))
    assert outcomes.count((1.0, True) if listens else (-1.0, False)) >= 2
    assert (-1.0, False) not in outcomes if listens else (1.0, True) not in outcomes
