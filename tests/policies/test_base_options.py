"""The blocks of options that both policies have."""

import re

import pytest

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig, DepthConfig
from lerobot_gem.validation import ConfigurationError


@pytest.mark.parametrize(
    ("block", "values", "message"),
    [
        (BackboneConfig, {"conditioning": "last"}, "backbone.conditioning='last' is unknown"),
        (CamerasConfig, {"layout": "grid"}, "layout='grid' is unknown: expected one of 'separate', 'conc"),
        (DepthConfig, {"target": "normals"}, "depth.target='normals' is unknown"),
        (DepthConfig, {"colormap": "jet"}, "depth.colormap='jet' is unknown"),
        (DepthConfig, {"unit": "cm"}, "depth.unit='cm' is unknown"),
        (DepthConfig, {"loss_weight": -1.0}, "depth.loss_weight=-1.0: expected 0 or more"),
        (DepthConfig, {"loss_weight": float("nan")}, "depth.loss_weight=nan: expected 0 or more"),
        (DepthConfig, {"share": 0.0}, "depth.share=0.0: expected a share of the images, above 0"),
        (DepthConfig, {"share": 1.5}, "depth.share=1.5: expected a share of the images"),
        (DepthConfig, {"share": float("nan")}, "depth.share=nan: expected a share of the images"),
        (
            DepthConfig,
            {"guidance_scale": -1.0},
            "depth.guidance_scale=-1.0: expected a finite weight, 0 or more",
        ),
        (DepthConfig, {"guidance_scale": float("nan")}, "depth.guidance_scale=nan: expected a finite weight"),
        (DepthConfig, {"guidance_scale": float("inf")}, "depth.guidance_scale=inf: expected a finite weight"),
        (DepthConfig, {"num_inference_steps": 0}, "depth.num_inference_steps=0: expected 1 to 1000"),
        (DepthConfig, {"num_inference_steps": 2_000_000_000}, "expected 1 to 1000"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(block, values: dict, message: str):
    block()
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        block(**values)
