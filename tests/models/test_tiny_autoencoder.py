"""The autoencoder of depth pictures that `tiny` ships with, and the example that trains another."""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC
from safetensors.torch import load_file
from torch import Tensor

from lerobot_gem.models.presets import get_preset
from lerobot_gem.policies.base_options import DepthConfig
from lerobot_gem.processing.depth_target import depth_target
from tests.conftest import CAMERAS, FRAMES

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_tiny_autoencoder.py"
PACKAGED = get_preset("tiny").autoencoder
LEAST_PSNR = {"spectral": 23, "inferno": 23}  # dB


def tables(count: int = 8) -> Tensor:
    """Depth maps (N, 1, 128, 128) in metres of boxes on a table before a wall, seen from above."""
    random = torch.Generator().manual_seed(0)

    def integers(low: int, high: int) -> list[int]:
        return torch.randint(low, high, (2,), generator=random).tolist()

    depth = torch.linspace(1.6, 0.6, 128)[:, None].repeat(count, 1, 1, 128)
    depth[:, :, :30] = 2
    for scene in depth[:, 0]:
        for _ in range(5):
            (row, column), (height, width) = integers(30, 100), integers(10, 30)
            scene[row : row + height, column : column + width] -= 0.1
    return depth


def pictures(colormap: str) -> Tensor:
    return depth_target(tables(), colormap=colormap, max_side=get_preset("tiny").max_depth_side).pictures


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderDC:
    return AutoencoderDC.from_pretrained(PACKAGED, torch_dtype=torch.float32).eval()


@pytest.mark.parametrize("colormap", ["spectral", "inferno"])
@torch.no_grad()
def test_pictures_of_scenes_it_never_saw_are_reconstructed(autoencoder, colormap):
    expected = pictures(colormap)
    error = (autoencoder(expected).sample - expected).square().mean().item()
    assert 10 * math.log10(4 / error) > LEAST_PSNR[colormap]


@torch.no_grad()
def test_scaled_latents_are_about_as_large_as_the_noise_that_the_flow_starts_from(autoencoder):
    painted = torch.cat([pictures("spectral"), pictures("inferno")])
    latents = autoencoder.encode(painted).latent * autoencoder.config.scaling_factor
    assert latents.square().mean().sqrt().item() == pytest.approx(1, rel=0.25)


def test_it_is_the_presets_in_size():
    stored = json.loads((PACKAGED / "config.json").read_text())
    expected = get_preset("tiny").depth.autoencoder | {"scaling_factor": stored["scaling_factor"]}
    assert stored["scaling_factor"] != 1
    assert {name: stored[name] for name in expected} == expected


def test_the_policy_starts_from_it(make_gem, autoencoder):
    policy, *_ = make_gem(allow_untrained=False)
    assert policy.config.built.generator["autoencoder"]["scaling_factor"] == autoencoder.config.scaling_factor
    own, expected = policy.generator.autoencoder.state_dict(), autoencoder.state_dict()
    assert own.keys() == expected.keys()
    assert all(own[name].equal(weight) for name, weight in expected.items())


def test_another_one_is_trained_by_the_example_and_takes_its_place(
    make_gem, depth_dataset_root, tmp_path, capsys
):
    main = runpy.run_path(str(EXAMPLE))["main"]
    folder = tmp_path / "another"
    options = ["--steps=2", "--batch_size=4", "--rgb"]
    main(["--data", str(depth_dataset_root), "--output_dir", str(folder), *options])
    printed = capsys.readouterr().out
    assert f"trained on {2 * FRAMES * len(CAMERAS)} depth maps, scaling factor" in printed
    held_out = FRAMES * len(CAMERAS)
    assert all(f"{name}: PSNR of {held_out} held-out" in printed for name in ("spectral", "inferno", "rgb"))

    policy, *_ = make_gem(depth=DepthConfig(autoencoder=str(folder)))
    stored = load_file(folder / "diffusion_pytorch_model.safetensors")
    own = policy.generator.autoencoder.state_dict()
    assert all(own[name].equal(weight.float()) for name, weight in stored.items())
    architecture = policy.config.built.generator["autoencoder"]
    assert (
        architecture["scaling_factor"] == json.loads((folder / "config.json").read_text())["scaling_factor"]
    )
