"""Depth models: sizes, units, what relative depth looks like, and models that can't be used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DPTConfig, GLPNConfig, ZoeDepthImageProcessor, pipeline
from transformers.modeling_outputs import DepthEstimatorOutput

from lerobot_gem.data.depth_labels.depth_model import (
    FARTHEST,
    NEAREST,
    DepthModel,
    DepthModelConfig,
    _depth_type,
    pseudo_depth,
    to_millimetres,
)
from lerobot_gem.processing.depth_target import MAX_DEPTH, MIN_DEPTH, depth_target, depth_values
from tests.data.depth_labels.pixel_depth import (
    PixelDepth,
    PixelDepthConfig,
    save_depth_anything,
    save_pixel_depth,
)

CPU, META = torch.device("cpu"), torch.device("meta")


def noise(count: int = 3, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.manual_seed(1)).to(torch.uint8)


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("models") / "relative")


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("models") / "metric", "metric")


# -- depth from predictions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (700.0, 40.0), (1e-3, -5.0)])
def test_relative_depth_has_the_picture_of_true_depth(scale: float, shift: float) -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 96), torch.linspace(0, 5, 128), indexing="ij")
    true = (1.5 + torch.sin(rows) * torch.cos(columns))[None]
    stored = torch.from_numpy(to_millimetres(pseudo_depth(scale / true + shift)).astype(np.float32)) / 1000
    # Half a millimetre where it matters most, over the part of inverse depth between the percentiles.
    torch.testing.assert_close(
        depth_values(stored[None], "spectral"), depth_values(true[None], "spectral"), atol=1 / 256, rtol=0
    )
    pictures = [depth_target(depth[None], colormap="spectral").pictures for depth in (stored, true)]
    assert (pictures[0] - pictures[1]).abs().mean() < 2 / 255


def test_relative_depth_is_within_what_training_takes_for_valid() -> None:
    depth = pseudo_depth(torch.tensor([[[0.0, 3.0], [10.0, 5.0]], [[-7.0, -9.0], [-8.0, -7.5]]]))
    assert depth.amin(dim=(1, 2)).tolist() == [NEAREST, NEAREST]
    assert depth.amax(dim=(1, 2)).tolist() == [FARTHEST, FARTHEST]
    assert depth[0, 1, 0] == NEAREST and depth[0, 0, 0] == FARTHEST  # larger is nearer
    assert MIN_DEPTH < NEAREST < FARTHEST < MAX_DEPTH


def test_relative_depth_without_contrast_or_without_finite_values() -> None:
    nothing = torch.full((2, 2), torch.nan)
    some = torch.tensor([[torch.inf, 1.0], [2.0, torch.nan]])
    depth = pseudo_depth(torch.stack([torch.full((2, 2), 3.0), nothing, some]))
    assert (depth[0] == FARTHEST).all() and depth[1].isnan().all()
    assert to_millimetres(depth)[2].tolist() == [[0, 8000], [1000, 0]]


def test_metres_become_millimetres_and_what_is_not_depth_becomes_zero() -> None:
    metres = torch.tensor([[[0.0004, 0.0006, 1.2344, 80.0], [0.0, -0.3, torch.nan, torch.inf]]])
    assert to_millimetres(metres).tolist() == [[[0, 1, 1234, 65535], [0, 0, 0, 0]]]
    assert to_millimetres(metres).dtype == np.uint16


# -- models --------------------------------------------------------------------------------------------------------------


def test_the_depth_of_each_pixel_is_that_of_its_colour(tmp_path: Path) -> None:
    model = DepthModel.load(DepthModelConfig(str(save_pixel_depth(tmp_path)), depth_type="metric"), CPU)
    images = noise()
    expected = images[:, 0].numpy().astype(np.uint16) * 256 + images[:, 1].numpy()
    np.testing.assert_array_equal(model.millimetres(images), expected)


def test_metric_depth_is_that_of_transformers_own_pipeline(metric: Path) -> None:
    model = DepthModel.load(DepthModelConfig(str(metric)), CPU)
    images = noise()
    depth = model.millimetres(images)
    assert model.depth_type == "metric" and depth.shape == (3, 40, 60) and depth.std() > 10
    estimate = pipeline("depth-estimation", model=str(metric), device="cpu")
    for image, found in zip(images, depth, strict=True):
        metres = estimate(Image.fromarray(image.permute(1, 2, 0).numpy()))["predicted_depth"]
        np.testing.assert_allclose(found, metres.numpy() * 1000, atol=0.51)


def test_relative_depth_fills_the_range(relative: Path) -> None:
    model = DepthModel.load(DepthModelConfig(str(relative)), CPU)
    depth = model.millimetres(noise())
    assert model.depth_type == "relative" and depth.shape == (3, 40, 60)
    assert depth.min(axis=(1, 2)).tolist() == [1000] * 3 and depth.max(axis=(1, 2)).tolist() == [8000] * 3


def test_zoedepth_crops_its_padding_at_the_size_of_the_image() -> None:
    class Constant(PixelDepth):
        def forward(self, pixel_values: torch.Tensor) -> DepthEstimatorOutput:
            return DepthEstimatorOutput(predicted_depth=torch.full((len(pixel_values), 64, 96), 2.5))

    processor = ZoeDepthImageProcessor(size={"height": 64, "width": 96})
    estimate = pipeline("depth-estimation", model=Constant(PixelDepthConfig()), image_processor=processor)
    model = DepthModel(estimate, "metric")
    depth = model.millimetres(noise(2))
    assert depth.shape == (2, 40, 60) and (depth == 2500).all()


def test_what_configurations_tell() -> None:
    assert _depth_type(DepthModelConfig(), GLPNConfig()) == "metric"
    assert _depth_type(DepthModelConfig(depth_type="relative"), DPTConfig()) == "relative"
    with pytest.raises(ValueError, match=r"type 'dpt'\) does not tell.*--model.depth_type=metric.*=relative"):
        _depth_type(DepthModelConfig(), DPTConfig())
    with pytest.raises(
        ValueError, match="model.depth_type is 'relative', but by its configuration.*is metric"
    ):
        _depth_type(DepthModelConfig(depth_type="relative"), GLPNConfig())
    with pytest.raises(
        ValueError, match="model.depth_type='disparity' is unknown: expected .*'metric', 'relative'"
    ):
        DepthModelConfig(depth_type="disparity")


@pytest.mark.parametrize("name", ["nobody/no-such-depth-model", "no/such/folder/on/disk"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(ValueError, match=f"Can't load the depth model '{name}'.*`hf download {name}`"):
        DepthModel.load(DepthModelConfig(name), CPU)


def test_a_folder_of_something_else(tmp_path: Path, relative: Path) -> None:
    folder = shutil.copytree(relative, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ValueError, match="Can't load the depth model"):
        DepthModel.load(DepthModelConfig(str(folder)), CPU)


def test_missing_weights_are_an_error_but_for_those_that_are_never_used(
    tmp_path: Path, relative: Path
) -> None:
    folder = shutil.copytree(relative, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    unused = "neck.fusion_stage.layers.0.residual_layer1."
    weights = {key: value for key, value in weights.items() if not key.startswith(unused)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    whole, pruned = (
        DepthModel.load(DepthModelConfig(str(path)), CPU).millimetres(noise()) for path in (relative, folder)
    )
    np.testing.assert_array_equal(whole, pruned)
    del weights["head.conv3.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for device in (CPU, META):
        with pytest.raises(ValueError, match=r"lacks 1 weights.*'head.conv3.weight'.*complete checkpoint"):
            DepthModel.load(DepthModelConfig(str(folder)), device)


def test_a_model_can_be_looked_at_without_its_weights(metric: Path, relative: Path) -> None:
    for path, depth_type in ((metric, "metric"), (relative, "relative")):
        model = DepthModel.load(DepthModelConfig(str(path)), META)
        assert model.depth_type == depth_type
        assert {weights.device for weights in model._estimate.model.parameters()} == {META}
