"""What of GEM-VLA acts, through LeRobot's own processors; what is computed there is tested in tests/inference."""

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from tests.conftest import ACTION_DIM, CAMERAS
from tests.policies.gem.test_modeling_gem import warm


def test_chunks_repeat_for_the_same_noise_and_see_images_state_and_task(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy)
    noise = torch.randn(4, 4, ACTION_DIM)

    def act(**changes):
        return policy.predict_action_chunk(preprocess({**batch, **changes}), noise=noise)

    chunk = act()
    assert chunk.shape == (4, 4, ACTION_DIM)
    assert act().equal(chunk)
    for key in (*CAMERAS, "observation.state"):
        assert not act(**{key: batch[key].flip(0)}).allclose(chunk), key
    assert not act(task=["wave"] * 4).allclose(chunk)


def test_a_sample_does_not_depend_on_the_rest_of_its_batch(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy)
    noise = torch.randn(4, 4, ACTION_DIM)
    tasks = ["pick up the milk", "a much longer task text that pads the others on the left", "go", "pick"]
    together = policy.predict_action_chunk(preprocess({**batch, "task": tasks}), noise=noise)
    for i, task in enumerate(tasks):
        one = {key: value[i : i + 1] for key, value in batch.items() if isinstance(value, torch.Tensor)}
        alone = policy.predict_action_chunk(preprocess({**one, "task": [task]}), noise=noise[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_queue_hands_out_the_chunk_and_reset_empties_it(make_policy, batch):
    policy, preprocess, _ = make_policy(n_action_steps=2)
    warm(policy)
    inputs = preprocess(batch)
    noise = torch.randn(4, 4, ACTION_DIM)
    chunk = policy.predict_action_chunk(inputs, noise=noise)
    other = torch.randn(4, 4, ACTION_DIM)
    assert policy.select_action(inputs, noise=noise).equal(chunk[:, 0])
    assert policy.select_action(inputs, noise=other).equal(chunk[:, 1])
    third = policy.predict_action_chunk(inputs, noise=other)
    assert policy.select_action(inputs, noise=other).equal(third[:, 0])
    policy.reset()
    assert policy.select_action(inputs, noise=noise).equal(chunk[:, 0])


def test_lerobots_interactive_rollout_finds_the_queue(make_policy, batch):
    """Its `drop_queued_actions` empties what `_action_queue_attrs` names, so that no old action survives a new task."""
    policy, preprocess, _ = make_policy()
    policy.select_action(preprocess(batch))
    queues = [getattr(policy, name) for name in policy._action_queue_attrs]
    assert [len(queue) for queue in queues] == [3]


def test_real_time_chunking_keeps_the_promised_actions_with_a_short_chunk(make_policy, batch):
    policy, preprocess, _ = make_policy()
    warm(policy)
    inputs = preprocess(
        {key: value[:1] if isinstance(value, torch.Tensor | list) else value for key, value in batch.items()}
    )
    noise = torch.randn(1, 4, ACTION_DIM)
    free = policy.predict_action_chunk(inputs, noise=noise)

    policy.config.rtc_config = RTCConfig(enabled=True, execution_horizon=10)
    with pytest.raises(RuntimeError, match=r"nothing guides its chunks: call init_rtc_processor\(\)"):
        policy.predict_action_chunk(inputs, noise=noise)
    policy.init_rtc_processor()
    unguided = policy.predict_action_chunk(inputs, noise=noise)
    torch.testing.assert_close(unguided, free, rtol=1e-4, atol=1e-5)

    # As LeRobot 0.6.1 does: the left-over is padded to its horizon of 10, longer than our chunk of 4.
    left_over = torch.cat([free[:, 1:] + 0.5, torch.zeros(1, 7, ACTION_DIM)], dim=1)
    guided = policy.predict_action_chunk(
        inputs, noise=noise, inference_delay=2, prev_chunk_left_over=left_over
    )
    before = (free[:, :2] - left_over[:, :2]).abs().mean()
    after = (guided[:, :2] - left_over[:, :2]).abs().mean()
    assert after < before
    with pytest.raises(RuntimeError, match="real-time chunking"):
        policy.select_action(inputs)
