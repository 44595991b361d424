"""One-step distillation against the official code, and what its loss reads."""

import pytest
import torch

from lerobot_gem.checkpoints.release_expert import expert_from_release, expert_to_release
from lerobot_gem.models.distillation import one_step_loss, sample_each
from tests.models.test_action_expert import build_like, make_expert, make_inputs


def released(distill, name: str):
    weights = distill.load_weights()
    expert = build_like(distill)
    expert.load_state_dict(
        expert_from_release(
            {
                key.removeprefix(f"{name}."): weight
                for key, weight in weights.items()
                if key.startswith(f"{name}.")
            }
        )
    )
    return expert


@pytest.mark.parity
def test_loss_chunks_and_gradient_match(distill):
    teacher, student = released(distill, "real_score"), released(distill, "generator")
    tokens, mask, state = distill["in.lang_tokens"], distill["in.lang_mask"], distill["in.state"][:, 0]
    noise = distill["in.noise"][:, None]
    steps = distill.spec["config"]["model"]["noise_scheduler"]["num_inference_timesteps"]
    with torch.no_grad():
        taught = sample_each(teacher, noise, teacher.encode_conditioning(tokens, mask), state, steps)
    distill.check("out.action_real", taught[:, 0])
    conditioning = student.encode_conditioning(tokens, mask)
    distill.check("out.action_one_step", student.sample(conditioning, state, noise[:, 0], num_steps=1))
    loss = one_step_loss(student, taught, noise, conditioning, state).mean()
    distill.check("out.loss", loss[None], tolerance="loss_scalars")
    loss.backward()
    gradients = expert_to_release({name: weight.grad for name, weight in student.named_parameters()})
    names = [name for name in distill.tensors if name.startswith("out.grad.generator.")]
    assert names
    for name in names:
        distill.check(name, gradients[name.removeprefix("out.grad.generator.")])


def test_draws_of_an_observation_are_averaged():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    conditioning = expert.encode_conditioning(states, mask)
    several = torch.stack([noise, 2 * noise, -noise], dim=1)
    taught = torch.randn_like(several, generator=torch.Generator().manual_seed(2))
    of_each = [
        one_step_loss(expert, taught[:, [draw]], several[:, [draw]], conditioning, state)
        for draw in range(several.shape[1])
    ]
    together = one_step_loss(expert, taught, several, conditioning, state)
    assert together.shape == (len(noise),)
    torch.testing.assert_close(together, torch.stack(of_each).mean(dim=0))
