import dataclasses
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lerobot_gem.checkpoints.release_expert import expert_from_release, expert_to_release
from lerobot_gem.models.action_expert import ActionExpert, Velocity, sample_time
from lerobot_gem.models.conditioning import Conditioning, KeyValue
from lerobot_gem.models.presets import ExpertArchitecture, ExpertConditioning

ARCHITECTURE = ExpertArchitecture(hidden_size=32, depth=3, num_heads=4, num_kv_heads=2, multiple_of=32)
B, L, D, T, A, S = 2, 6, 24, 5, 3, 4


def make_expert(
    *, state_dim: int | None = S, randomised: bool = True, conditioning: ExpertConditioning = "states"
) -> ActionExpert:
    """A small expert; randomised, because a fresh one answers zero to everything."""
    torch.manual_seed(0)
    expert = ActionExpert(
        ARCHITECTURE,
        conditioning_dim=D if conditioning == "states" else 2 * 2 * 8,
        action_dim=A,
        state_dim=state_dim,
        chunk_size=T,
        conditioning=conditioning,
    )
    if randomised:
        for parameter in expert.parameters():
            nn.init.normal_(parameter, std=0.3)
    return expert


def make_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Conditioning states (B, depth, L, D), mask (B, L) with left padding, state (B, S), noise (B, T, A)."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, :2] = False
    states, state, noise = (
        torch.randn(shape, generator=generator) for shape in ((B, 3, L, D), (B, S), (B, T, A))
    )
    return states, mask, state, noise


# --- parity with the official code ---------------------------------------------------------------------------


def build_like(rdt, conditioning: ExpertConditioning = "states") -> ActionExpert:
    config = rdt.spec["config"]
    known = {field.name for field in dataclasses.fields(ExpertArchitecture)}
    architecture = ExpertArchitecture(
        **{name: value for name, value in config["model"]["rdt"].items() if name in known}
    )
    keys_and_values = 2 * architecture.num_kv_heads * architecture.head_size
    return ActionExpert(
        architecture,
        conditioning_dim=config["model"]["lang_token_dim"] if conditioning == "states" else keys_and_values,
        conditioning=conditioning,
        action_dim=config["action_dim"],
        state_dim=config["state_dim"],
        chunk_size=config["horizon"],
    )


@pytest.fixture
def released(rdt) -> ActionExpert:
    expert = build_like(rdt)
    expert.load_state_dict(expert_from_release(rdt.load_weights()))
    return expert


@pytest.fixture
def condition(rdt, released) -> Conditioning:
    return released.encode_conditioning(rdt["in.lang_tokens"], rdt["in.lang_mask"])


@pytest.mark.parity
def test_positions_begin_as_in_the_release(rdt):
    expert = build_like(rdt)
    rdt.check("out.init.x_pos_emb", expert.position_embedding)
    rdt.check("out.init.state_pos_emb", expert.state_embedding)


@pytest.mark.parity
def test_embeddings_match(rdt, released):
    rdt.check("out.t_embed", released.time_embedding(rdt["in.timesteps"]))
    rdt.check("out.lang_adapted", released.conditioning_adaptor(rdt["in.lang_tokens"]))
    rdt.check("out.action_adapted", released.action_adaptor(rdt["in.noisy_action"]))
    rdt.check("out.state_adapted", released.state_adaptor(rdt["in.state"]))


@pytest.mark.parity
def test_velocity_matches(rdt, released, condition):
    noisy, time, state = rdt["in.noisy_action"], rdt["in.timesteps"], rdt["in.state"][:, 0]
    tokens, mask = rdt["in.lang_tokens"], rdt["in.lang_mask"]
    rdt.check("out.velocity", released(noisy, time, condition, state))
    rdt.check("out.velocity_t_scalar", released(noisy, time[:1], condition, state))
    unmasked = released.encode_conditioning(tokens, None)
    rdt.check("out.velocity_nomask", released(noisy, time, unmasked, state))
    shared = released.encode_conditioning(tokens[:, 1], mask)
    rdt.check("out.velocity_shared_layer", released(noisy, time, shared, state))


@pytest.mark.parity
def test_samples_match(rdt, released, condition):
    names = [name for name in rdt.tensors if name.startswith("out.sample_")]
    assert names
    for name in names:
        steps = int(re.fullmatch(r"out\.sample_(\d+)step", name)[1])
        rdt.check(
            name, released.sample(condition, rdt["in.state"][:, 0], rdt["in.sample_noise"], num_steps=steps)
        )


@pytest.mark.parity
def test_loss_and_gradients_match(rdt, released):
    tokens = rdt["in.lang_tokens"].clone().requires_grad_()
    error = released.flow_matching_error(
        rdt["in.action_gt"],
        released.encode_conditioning(tokens, rdt["in.lang_mask"]),
        rdt["in.state"][:, 0],
        noise=rdt["in.loss_noise"],
        time=rdt["in.loss_timesteps"],
    )
    assert error.shape == rdt["in.action_gt"].shape
    loss = error.mean()
    rdt.check("out.loss", loss[None], tolerance="loss_scalars")
    loss.backward()
    gradients = expert_to_release({name: weight.grad for name, weight in released.named_parameters()})
    gradients["lang_tokens"] = tokens.grad
    names = [name for name in rdt.tensors if name.startswith("out.grad.")]
    assert names
    for name in names:
        rdt.check(name, gradients[name.removeprefix("out.grad.")])


def given_keys_and_values(rdt, released: ActionExpert) -> ActionExpert:
    """The same expert without what makes keys and values; those that the release repeats to all heads come from outside."""
    expert = build_like(rdt, conditioning="key_values")
    weights = released.state_dict()
    unused = weights.keys() - expert.state_dict().keys()
    of_block = (
        "conditioning_norm.weight",
        *(f"cross_attention.{part}.weight" for part in ("key", "value", "key_norm")),
    )
    assert all(name.startswith("conditioning_adaptor.") or name.endswith(of_block) for name in unused)
    expert.load_state_dict({name: weight for name, weight in weights.items() if name not in unused})
    return expert


@pytest.mark.parity
def test_given_keys_and_values_act_as_in_the_release(rdt, released):
    """`lang_kv_cache` of the release: (B, kv heads, L, head size) for each block, keys already normalised.

    With keys and values that the release's own weights make of the states, it gives the golden velocities.
    """
    expert = given_keys_and_values(rdt, released)
    adapted = released.conditioning_adaptor(rdt["in.lang_tokens"]).unbind(1)
    cache = [
        block.cross_attention.keys_values(block.conditioning_norm(tokens))
        for block, tokens in zip(released.blocks, adapted, strict=True)
    ]
    assert cache[0].key.shape[1] == expert.architecture.num_kv_heads
    read = torch.stack([given.side_by_side() for given in cache], dim=1)
    noisy, time, state = rdt["in.noisy_action"], rdt["in.timesteps"], rdt["in.state"][:, 0]
    conditioning = expert.encode_conditioning(read, rdt["in.lang_mask"])
    rdt.check("out.velocity", expert(noisy, time, conditioning, state))
    rdt.check("out.velocity_nomask", expert(noisy, time, expert.encode_conditioning(read, None), state))
    for name in (name for name in rdt.tensors if name.startswith("out.sample_")):
        steps = int(re.fullmatch(r"out\.sample_(\d+)step", name)[1])
        rdt.check(name, expert.sample(conditioning, state, rdt["in.sample_noise"], num_steps=steps))


def test_given_keys_and_values_are_attended_to_as_they_are():
    """As RDT does: the query normalised per head and not rotated, heads of keys and values repeated, nothing else."""
    expert = make_expert(conditioning="key_values")
    _, mask, _, _ = make_inputs()
    torch.manual_seed(0)
    keys, values = torch.randn(2, B, 2, L, 8)
    read = KeyValue(keys, values).side_by_side()
    encoded = expert.encode_conditioning(read, mask)
    attention, tokens = expert.blocks[1].cross_attention, torch.randn(B, T, 32)
    query = attention.query(tokens).view(B, T, 4, 8).transpose(1, 2)
    query = attention.query_norm.weight * query / (query.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    scores = query @ keys.repeat_interleave(2, dim=1).mT / 8**0.5
    shares = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(dim=-1)
    attended = (shares @ values.repeat_interleave(2, dim=1)).transpose(1, 2).reshape(B, T, 32)
    torch.testing.assert_close(attention(tokens, encoded.blocks[1], encoded.mask), attention.output(attended))


def test_keys_and_values_need_no_weights_of_the_expert():
    expert = make_expert(conditioning="key_values")
    names = ("conditioning_adaptor", "conditioning_norm", "cross_attention.key", "cross_attention.value")
    assert not [name for name in expert.state_dict() if any(part in name for part in names)]
    read = torch.randn(B, 3, L, 2 * 2 * 8, requires_grad=True)
    _, mask, state, actions = make_inputs()
    expert.loss(actions, None, expert.encode_conditioning(read, mask), state).sum().backward()
    assert all(weight.grad is not None for weight in expert.parameters())
    assert (read.grad.abs().amax(dim=(0, 2)) > 0).all()  # every key and every value of every block
    assert read.grad[0, :, :2].abs().max() == 0  # but not where it is padding


# --- behaviour ------------------------------------------------------------------------------------------------


def test_conditioning_is_projected_once_per_observation():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    calls: list[nn.Module] = []
    for projection in [
        expert.conditioning_adaptor,
        *(getattr(block.cross_attention, name) for block in expert.blocks for name in ("key", "value")),
    ]:
        projection.register_forward_hook(lambda module, *_: calls.append(module))
    expert.sample(expert.encode_conditioning(states, mask), state, noise, num_steps=7)
    assert len(calls) == 1 + 2 * len(expert.blocks)


def test_sampling_is_euler_integration_of_forward():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    conditioning = expert.encode_conditioning(states, mask)
    actions = noise
    for step in range(4):
        actions = actions + expert(actions, torch.tensor([step / 4]), conditioning, state) / 4
    torch.testing.assert_close(expert.sample(conditioning, state, noise, num_steps=4), actions)


def test_another_integrator_gets_the_velocity_of_each_step_made_of_one_pass_over_the_modulations():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    conditioning = expert.encode_conditioning(states, mask)
    passes: list[nn.Module] = []
    for layer in (*(block.modulation for block in expert.blocks), expert.output.modulation):
        layer.register_forward_hook(lambda module, *_: passes.append(module))
    given: list[Sequence[Velocity]] = []

    def integrate(velocities: Sequence[Velocity], start: Tensor) -> Tensor:
        given.append(velocities)
        return sum((velocity(start) for velocity in velocities), start)

    expert.sample(conditioning, state, noise, num_steps=4, integrate=integrate)
    assert len(passes) == len(expert.blocks) + 1
    [velocities] = given
    assert len(velocities) == 4
    for step, velocity in enumerate(velocities):
        expected = expert(noise, torch.tensor([step / 4]), conditioning, state)
        torch.testing.assert_close(velocity(noise), expected)


def accumulated(steps: int) -> Tensor:
    times = [torch.zeros((), dtype=torch.bfloat16)]
    for _ in range(steps - 1):
        times.append(times[-1] + 1 / steps)
    return torch.stack(times).float()


@pytest.mark.parametrize(
    ("steps", "expected"),
    # Five steps as measured in the release; ten, because there the rounded sums leave the rounded multiples.
    [(5, torch.tensor([0.0, 0.2002, 0.4004, 0.6016, 0.8008])), (10, accumulated(10))],
    ids=["5", "10"],
)
def test_bfloat16_time_accumulates_as_in_the_release(steps, expected):
    expert = make_expert().bfloat16()
    states, mask, state, noise = make_inputs()
    seen: list[Tensor] = []
    expert.time_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten()))
    actions = expert.sample(expert.encode_conditioning(states, mask), state, noise, num_steps=steps)
    assert actions.dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(seen).float(), expected, atol=1e-4, rtol=0)


def test_ten_accumulated_times_are_not_the_rounded_multiples():
    assert not torch.equal(accumulated(10), (torch.arange(10) / 10).bfloat16().float())


def test_padded_tokens_carry_nothing_and_real_ones_do():
    expert = make_expert()
    states, mask, state, noise = make_inputs()

    def sample(tokens: Tensor) -> Tensor:
        return expert.sample(expert.encode_conditioning(tokens, mask), state, noise, num_steps=2)

    reference = sample(states)
    padding_changed, token_changed = states.clone(), states.clone()
    padding_changed[0, :, :2] += 10
    token_changed[0, :, 2] += 10
    assert torch.equal(sample(padding_changed), reference)
    assert not torch.allclose(sample(token_changed)[0], reference[0])
    assert torch.equal(sample(token_changed)[1], reference[1])


def test_integer_masks_work_like_boolean_ones():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    time = torch.tensor([0.3])
    boolean = expert(noise, time, expert.encode_conditioning(states, mask), state)
    assert torch.equal(expert(noise, time, expert.encode_conditioning(states, mask.long()), state), boolean)


def test_each_block_reads_its_own_state():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    reference = expert.encode_conditioning(states, mask)
    for index in range(len(expert.blocks)):
        changed = states.clone()
        changed[:, index] += 1
        blocks = expert.encode_conditioning(changed, mask).blocks
        differs = [
            not torch.equal(new.key, old.key) for new, old in zip(blocks, reference.blocks, strict=True)
        ]
        assert differs == [other == index for other in range(len(expert.blocks))]


def test_state_reaches_the_velocity():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    conditioning, time = expert.encode_conditioning(states, mask), torch.tensor([0.5])
    assert not torch.allclose(
        expert(noise, time, conditioning, state), expert(noise, time, conditioning, state + 1)
    )


def test_without_state_input_the_learned_embedding_takes_its_place():
    expert = make_expert(state_dim=None)
    states, mask, state, noise = make_inputs()
    conditioning = expert.encode_conditioning(states, mask)
    assert not any("state_adaptor" in name for name in expert.state_dict())
    expert(noise, torch.full((B,), 0.5), conditioning, None).sum().backward()
    assert all(parameter.grad is not None for parameter in expert.parameters())
    assert expert.state_embedding.grad.abs().max() > 0
    assert expert.sample(conditioning, None, noise, num_steps=2).shape == noise.shape
    with pytest.raises(ValueError, match="without a state input"):
        expert(noise, torch.tensor([0.5]), conditioning, state)


def test_fresh_expert_predicts_nothing_and_learns():
    expert = make_expert(randomised=False)
    states, mask, state, noise = make_inputs()
    assert (
        expert(noise, torch.tensor([0.5]), expert.encode_conditioning(states, mask), state).abs().max() == 0
    )
    optimiser = torch.optim.Adam(expert.parameters(), lr=3e-3)
    actions = torch.tensor([-1.0, 1.0])[:, None, None].expand(B, T, A)
    errors = []
    for _ in range(200):
        optimiser.zero_grad()
        conditioning = expert.encode_conditioning(states, mask)
        error = expert.flow_matching_error(actions, conditioning, state, time_distribution="uniform").mean()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert sum(errors[-20:]) < 0.6 * sum(errors[:20])


def test_a_chunk_of_padding_alone_carries_no_loss():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    is_pad = torch.zeros(B, T, dtype=torch.bool)
    conditioning = expert.encode_conditioning(states, mask)
    draws = {"noise": noise, "time": torch.full((B,), 0.5)}
    loss = expert.loss(noise + 1, is_pad, conditioning, state, **draws)
    is_pad[1] = True
    padded = expert.loss(noise + 1, is_pad, conditioning, state, **draws)
    assert padded[0] == loss[0] and padded[1] == 0
    padded.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in expert.parameters() if weight.grad is not None)


def test_error_is_that_of_the_straight_path():
    """A velocity of zero (fresh expert) leaves the squared displacement from noise to action."""
    expert = make_expert(randomised=False)
    states, mask, state, noise = make_inputs()
    actions = noise.flip(0) + 0.5
    error = expert.flow_matching_error(
        actions, expert.encode_conditioning(states, mask), state, noise=noise, time=torch.tensor([0.2, 0.9])
    )
    torch.testing.assert_close(error, (actions - noise).square())


def test_drawn_noise_and_time_follow_the_seed():
    expert = make_expert()
    states, mask, state, actions = make_inputs()
    conditioning = expert.encode_conditioning(states, mask)

    def error(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return expert.flow_matching_error(actions, conditioning, state)

    assert torch.equal(error(3), error(3))
    assert not torch.allclose(error(3), error(4))


def test_error_stays_in_float32_under_bfloat16_weights():
    expert = make_expert().bfloat16()
    states, mask, state, actions = make_inputs()
    error = expert.flow_matching_error(actions, expert.encode_conditioning(states, mask), state)
    assert error.dtype == torch.float32


def test_velocity_has_the_dtype_of_autocast_and_samples_that_of_the_weights():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conditioning = expert.encode_conditioning(states, mask)
        assert expert(noise, torch.tensor([0.5]), conditioning, state).dtype == torch.bfloat16
        assert expert.sample(conditioning, state, noise, num_steps=2).dtype == torch.float32


def test_repeated_conditioning_serves_each_observation_in_a_row():
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    conditioning, time = expert.encode_conditioning(states, mask), torch.tensor([0.5])
    once = expert(noise, time, conditioning, state)
    repeated = expert(
        noise.repeat_interleave(3, 0), time, conditioning.repeat(3), state.repeat_interleave(3, 0)
    )
    torch.testing.assert_close(repeated, once.repeat_interleave(3, 0))
    assert conditioning.repeat(1) is conditioning


@pytest.mark.parametrize(
    ("distribution", "to_standard", "mean", "std"),
    [
        ("logit_normal", torch.logit, 0.0, 1.0),
        ("uniform", lambda t: t, 0.5, 12**-0.5),
        ("beta", lambda t: t, 0.4, 0.0686**0.5),
    ],
)
def test_time_distributions(distribution, to_standard, mean, std):
    torch.manual_seed(0)
    times = to_standard(sample_time(20_000, distribution))
    assert times.mean().item() == pytest.approx(mean, abs=0.03)
    assert times.std().item() == pytest.approx(std, abs=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, c, s, n: e.sample(c, s, n, num_steps=0), "num_steps=0 must be at least 1"),
        (lambda e, c, s, n: e.sample(c, s, n[:, :-1], num_steps=1), r"\(B, 5, 3\) but got \(2, 4, 3\)"),
        (
            lambda e, c, s, n: e.sample(c, s[:, :-1], n, num_steps=1),
            r"\(B, 4\) but got one of shape \(2, 3\)",
        ),
        (lambda e, c, s, n: e.sample(c, None, n, num_steps=1), r"\(B, 4\) but got none"),
        (
            lambda e, c, s, n: e.flow_matching_error(n, c, s, time_distribution="gaussian"),
            "'gaussian'.*'logit_normal', 'uniform', 'beta'",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    expert = make_expert()
    states, mask, state, noise = make_inputs()
    with pytest.raises(ValueError, match=message):
        call(expert, expert.encode_conditioning(states, mask), state, noise)


def test_number_of_states_must_be_the_number_of_blocks():
    states, mask, _, _ = make_inputs()
    with pytest.raises(ValueError, match="3 blocks but got 2 conditioning states"):
        make_expert().encode_conditioning(states[:, :2], mask)


def test_nothing_of_a_block_is_called_outside_its_forward():
    """Sharded training has a block's weights together only while its forward runs."""
    expert = make_expert()
    inside: list[nn.Module] = []

    def check(block: nn.Module) -> None:
        assert inside == [block]

    for block in expert.blocks:
        for module in block.modules():
            module.register_forward_pre_hook(lambda _, __, block=block: check(block))
        block.register_forward_pre_hook(lambda module, _: inside.append(module), prepend=True)
        block.register_forward_hook(lambda *_: inside.clear())
    conditioning = expert.encode_conditioning(torch.randn(B, L, D), None)
    expert.loss(torch.randn(B, T, A), None, conditioning, torch.randn(B, S))
    expert.sample(conditioning, torch.randn(B, S), num_steps=2)


def test_keys_and_values_must_be_as_wide_as_the_heads():
    with pytest.raises(ValueError, match=r"2 heads of 8 but conditioning_dim=24 is not 2 \* 2 \* 8"):
        ActionExpert(
            ARCHITECTURE,
            conditioning_dim=D,
            action_dim=A,
            state_dim=S,
            chunk_size=T,
            conditioning="key_values",
        )
