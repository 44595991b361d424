import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import DepthArchitecture, get_preset

N, S, D, SIZE = 3, 5, 12, (32, 64)


def make_generator() -> DepthGenerator:
    """A small generator whose scales are those of a trained one, so that no part of it is nearly silent."""
    tiny = get_preset("tiny").depth
    small = {"num_layers": 2, "num_attention_heads": 2, "caption_channels": 24}
    small |= {"num_cross_attention_heads": 2, "cross_attention_head_dim": 16, "cross_attention_dim": 32}
    torch.manual_seed(0)
    generator = DepthGenerator(replace(tiny, transformer=tiny.transformer | small), conditioning_dim=D)
    nn.init.normal_(generator.transformer.proj_out.weight, std=0.3)
    return generator.eval()


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Conditioning (N, S, D), mask (N, S) of 5, 3 and 1 tokens, pictures (N, 3, h, w)."""
    random = torch.Generator().manual_seed(1)
    mask = torch.arange(S) < torch.tensor([5, 3, 1])[:, None]
    return (
        torch.randn(N, S, D, generator=random),
        mask,
        torch.rand(N, 3, *SIZE, generator=random) * 2 - 1,
    )


def make_noise(generator: DepthGenerator) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    channels = generator.transformer.config.in_channels
    ratio = generator.autoencoder.spatial_compression_ratio
    noise = torch.randn(N, channels, SIZE[0] // ratio, SIZE[1] // ratio, generator=random)
    return noise, torch.tensor([0, 400, 999])


# --- parity with the official code ----------------------------------------------------------------------------


def released(depth, shift: float = 1.0) -> DepthGenerator:
    config = depth.spec["config"]
    architecture = DepthArchitecture(config["sana"], config["vae"], {"shift": shift})
    generator = DepthGenerator(architecture, conditioning_dim=config["vlm_hidden"])
    ours = {"sana.": "transformer.", "vae.": "autoencoder.", "diffusion_connector.": "connector."}
    weights = {}
    for name, weight in depth.load_weights().items():
        [prefix] = [prefix for prefix in ours if name.startswith(prefix)]
        weights[ours[prefix] + name.removeprefix(prefix)] = weight
    generator.load_state_dict(weights)
    return generator.eval()


def spans(depth, inputs: str) -> Tensor:
    """Vision spans (N, S, D) of one sample, all of one length."""
    config, tokens = depth.spec["config"], depth[f"in.{inputs}.input_ids"][0]
    starts, ends = (
        (tokens == config[f"vision_{end}_token_id"]).nonzero()[:, 0].tolist() for end in ("start", "end")
    )
    states = depth[f"in.{inputs}.hidden_states"][0]
    return torch.stack([states[a + 1 : b] for a, b in zip(starts, ends, strict=True)])


SHIFTS = pytest.mark.parametrize(("suffix", "shift"), [("", 1.0), ("_shift3", 3.0)])


@pytest.mark.parity
def test_latents_and_connector(depth):
    generator = released(depth)
    depth.check("out.latents", generator.encode(depth["in.depth_images"]))
    depth.check("out.connector", generator.connector(depth["out.vision_hidden"]))
    null = torch.zeros(1, 1, depth.spec["config"]["vlm_hidden"])
    depth.check("out.connector_null", generator.connector(null))


@pytest.mark.parity
@SHIFTS
@pytest.mark.parametrize("mode", ["eval", "train_drop"])
def test_loss(depth, suffix, shift, mode):
    generator = released(depth, shift)
    seen = {}
    generator.transformer.register_forward_hook(
        lambda _, args, kwargs, output: seen.update(kwargs, noisy=args[0], velocity=output[0]),
        with_kwargs=True,
    )
    losses = generator.loss(
        depth["out.vision_hidden"],
        depth["out.vision_mask"].bool(),
        depth["in.depth_images"],
        noise=depth["in.train.noise"],
        timestep_indices=(depth["in.train.u"] * 1000).long(),
        drop=depth["in.train.drop"] if mode == "train_drop" else None,
    )
    depth.check(f"out.timesteps{suffix}", seen["timestep"])
    depth.check(f"out.noisy_latents{suffix}", seen["noisy"])
    depth.check(f"out.sana_pred.{mode}{suffix}", seen["velocity"])
    depth.check(f"out.dit_loss.{mode}{suffix}", losses.mean()[None], tolerance="loss_scalars")


@pytest.mark.parity
@SHIFTS
def test_guided_sampling(depth, suffix, shift):
    generator = released(depth, shift)
    conditioning = spans(depth, "gen")
    mask = torch.ones(conditioning.shape[:2], dtype=torch.bool)
    decoded = []
    decode = generator.decode
    generator.decode = lambda latents: decode(decoded.append(latents) or latents)
    settings = [name.split(".")[2] for name in depth.tensors if name.endswith(f"{suffix}.images")]
    settings = [name for name in settings if name.endswith("_shift3") == bool(suffix)]
    assert settings
    for setting in settings:
        guidance, steps = (int(part[1:]) for part in setting.split("_")[:2])
        images = generator.sample(
            conditioning,
            mask,
            depth["in.depth_images"].shape[-2:],
            guidance_scale=guidance,
            num_inference_steps=steps,
            latents=depth["in.gen.init_latents"],
        )
        depth.check(f"out.gen.{setting}.latents", decoded[-1])
        depth.check(f"out.gen.{setting}.images", images)


# --- loss -----------------------------------------------------------------------------------------------------


def test_losses_are_of_each_image_alone_and_padding_is_not_read():
    generator, (conditioning, mask, pictures) = make_generator(), make_inputs()
    noise, indices = make_noise(generator)
    together = generator.loss(conditioning, mask, pictures, noise=noise, timestep_indices=indices)
    assert together.shape == (N,)
    for i in range(N):
        tokens = int(mask[i].sum())
        alone = generator.loss(
            conditioning[i : i + 1, :tokens],
            mask[i : i + 1, :tokens],
            pictures[i : i + 1],
            noise=noise[i : i + 1],
            timestep_indices=indices[i : i + 1],
        )
        torch.testing.assert_close(alone, together[i : i + 1])


def test_all_is_drawn_in_the_order_of_the_release():
    generator, inputs = make_generator().train(), make_inputs()
    torch.manual_seed(3)
    drawn = generator.loss(*inputs)
    torch.manual_seed(3)
    noise = torch.randn_like(generator.encode(inputs[2]))
    indices = (torch.rand(N) * 1000).long()
    drop = torch.bernoulli(torch.full((N,), 0.1))
    given = generator.loss(*inputs, noise=noise, timestep_indices=indices, drop=drop)
    torch.testing.assert_close(drawn, given, rtol=0, atol=0)


def test_a_tenth_of_the_conditioning_is_dropped_in_training_only():
    generator, images = make_generator(), 400
    given = [tensor[:1].expand(images, *tensor.shape[1:]) for tensor in make_inputs()]
    seen = []
    generator.connector.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generator.encode = lambda pictures: torch.zeros(len(pictures), 16, 1, 1)
    torch.manual_seed(0)
    for mode, low, high in ((False, 0, 0), (True, 20, 60)):
        generator.train(mode).loss(*given)
        assert low <= int((seen.pop() == 0).flatten(1).all(dim=1).sum()) <= high


def test_gradients_reach_all_but_the_autoencoder():
    generator, (conditioning, mask, pictures) = make_generator().train(), make_inputs()
    conditioning.requires_grad_()
    assert not generator.autoencoder.training
    generator.loss(conditioning, mask, pictures, drop=torch.tensor([True, False, False])).sum().backward()
    for name, parameter in generator.named_parameters():
        assert (parameter.grad is None) == name.startswith("autoencoder."), name
    reached = conditioning.grad.abs().sum(dim=-1) > 0
    assert (reached == mask & torch.tensor([False, True, True])[:, None]).all()


def test_gradient_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        generator, inputs = make_generator(), make_inputs()
        noise, indices = make_noise(generator)
        if checkpointing:
            generator.gradient_checkpointing_enable()
            assert generator.transformer.is_gradient_checkpointing
        generator.loss(*inputs, noise=noise, timestep_indices=indices).sum().backward()
        gradients.append(generator.connector[0].weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_close_to_float32(autocast):
    generator, inputs = make_generator(), make_inputs()
    noise, indices = make_noise(generator)
    exact = generator.loss(*inputs, noise=noise, timestep_indices=indices)
    generator = generator if autocast else generator.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        rough = generator.loss(inputs[0].bfloat16(), *inputs[1:], noise=noise, timestep_indices=indices)
        pictures = generator.sample(inputs[0].bfloat16(), inputs[1], SIZE, num_inference_steps=2)
    assert rough.dtype == pictures.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


# --- sampling -------------------------------------------------------------------------------------------------


def test_sampling_leaves_training_as_it_was():
    """The release's sampling changes the one scheduler, and the next loss fails."""
    generator, inputs = make_generator(), make_inputs()
    noise, indices = make_noise(generator)
    before = generator.loss(*inputs, noise=noise, timestep_indices=indices)
    generator.sample(*inputs[:2], SIZE, num_inference_steps=2)
    after = generator.loss(*inputs, noise=noise, timestep_indices=indices)
    torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_samples_are_of_each_image_alone():
    generator, (conditioning, mask, _) = make_generator(), make_inputs()
    latents, _ = make_noise(generator)
    together = generator.sample(conditioning, mask, SIZE, num_inference_steps=3, latents=latents)
    assert together.shape == (N, 3, *SIZE) and together.min() >= 0 and together.max() <= 1
    alone = generator.sample(
        conditioning[1:2, :3], mask[1:2, :3], SIZE, num_inference_steps=3, latents=latents[1:2]
    )
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)


def test_noise_is_drawn_from_the_given_generator():
    generator, (conditioning, mask, _) = make_generator(), make_inputs()
    first, second, other = (
        generator.sample(
            conditioning, mask, SIZE, num_inference_steps=2, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_euler_steps_lead_to_the_latent_that_the_velocity_points_to():
    generator, (conditioning, mask, pictures) = make_generator(), make_inputs()
    latents = generator.encode(pictures)
    noise, _ = make_noise(generator)
    generator._velocity = lambda *_: noise - latents
    expected = (generator.decode(latents) / 2 + 0.5).clamp(0, 1)
    sampled = generator.sample(
        conditioning, mask, SIZE, guidance_scale=1, num_inference_steps=4, latents=noise
    )
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-4)


# --- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "parameters", "tensors"), [("transformer", 1604.6, 476), ("autoencoder", 312.3, 375)]
)
def test_2b_is_sana_1_6b(part, parameters, tensors):
    """Against the release's counts, in millions."""
    with torch.device("meta"):
        generator = DepthGenerator(get_preset("2b").depth, conditioning_dim=2048)
    weights = getattr(generator, part).state_dict()
    assert sum(weight.numel() for weight in weights.values()) == pytest.approx(parameters * 1e6, abs=5e4)
    assert len(weights) == tensors
    assert sum(weight.numel() for weight in generator.connector.parameters()) == pytest.approx(
        10.03e6, abs=5e3
    )


@pytest.mark.parametrize("preset", ["tiny", "2b", "8b"])
def test_architecture_is_plain_json(preset):
    architecture = get_preset(preset).depth
    assert DepthArchitecture(**json.loads(json.dumps(asdict(architecture)))) == architecture


def test_parts_must_share_their_latent_channels():
    tiny = get_preset("tiny").depth
    with pytest.raises(ValueError, match="latent_channels is 7; expected one number"):
        replace(tiny, autoencoder=tiny.autoencoder | {"latent_channels": 7})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioning": torch.zeros(N, S, D + 1)}, r"shape \(N, S, 12\) but got \(3, 5, 13\)"),
        ({"mask": torch.ones(N, S - 1, dtype=torch.bool)}, r"mask of shape \(3, 5\) but got \(3, 4\)"),
        ({"targets": torch.zeros(N, 3, 40, 64)}, "multiples of 16.*40 x 64"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    inputs = dict(zip(("conditioning", "mask", "targets"), make_inputs(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        make_generator().loss(**inputs)
