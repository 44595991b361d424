"""What is not finite is told with its cause, and neither learned nor acted on."""

import numpy as np
import pytest
import torch

from tests.conftest import ACTION_DIM


def test_what_is_not_finite_is_never_learned(make_policy, batch):
    policy, preprocess, _ = make_policy()
    inputs = preprocess(batch)
    state = inputs["observation.state"].clone()
    state[2, 4] = np.nan  # as statistics would do that are not finite
    with pytest.raises(
        ValueError,
        match=r"observation.state, normalised,\[4\] is nan in frame 10 \(episode 1\): .*statistics",
    ):
        policy({**inputs, "observation.state": state})
    noise = torch.zeros(4, 4, ACTION_DIM)
    noise[1] = 3e38  # whose square overflows
    with pytest.raises(
        ValueError, match=r"The loss is inf in frame 3 \(episode 0\): .*lower the learning rate"
    ):
        policy(inputs, noise=noise, time=torch.full((4,), 0.5))
    next(policy.expert.parameters()).data.view(-1)[0] = np.nan
    with pytest.raises(
        ValueError, match=r"The weights 'expert\..*' hold NaN or infinity: .*earlier checkpoint"
    ):
        policy(inputs)


def test_what_is_not_finite_never_moves_a_robot(make_policy, batch):
    policy, preprocess, _ = make_policy()
    inputs = preprocess(batch)
    state = inputs["observation.state"].clone()
    state[2, 4] = np.nan
    for act in (policy.predict_action_chunk, policy.select_action):
        with pytest.raises(ValueError, match=r"observation.state, normalised,\[4\] is nan in frame 10"):
            act({**inputs, "observation.state": state})
    with pytest.raises(ValueError, match=r"The chunk of actions\[0, 0\] is nan in frame 0"):
        policy.predict_action_chunk(inputs, noise=torch.full((4, 4, ACTION_DIM), np.nan))


def test_a_step_that_breaks_the_weights_ends_before_they_are_saved(make_policy, batch):
    policy, preprocess, _ = make_policy()
    loss, _ = policy(preprocess(batch))
    loss.backward()
    next(policy.expert.parameters()).grad.view(-1)[0] = np.nan
    policy.update()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    torch.optim.SGD(policy.parameters(), lr=1e-3).step()
    with pytest.raises(ValueError, match=r"last step made weights \('.*'\) that are not finite"):
        policy.update()
