"""Depth of camera frames by the depth-estimation models of transformers, in the millimetres that LeRobot stores.

Metric models predict metres, which are kept. Relative models (MiDaS, Depth Anything without "Metric" in its name) predict
s = a / d + b: inverse depth with a scale a > 0 and a shift b that are unknown and differ between images. That gives no
depth, only a pseudo-depth p between `NEAREST` and `FARTHEST`, with the extremes of s in the image:

    1/p = 1/FARTHEST + (s - min s) / (max s - min s) * (1/NEAREST - 1/FARTHEST)

So 1/p is an increasing affine function of s, and thereby of the true 1/d. GEM's `spectral` colormap
(processing/depth_target.py) places inverse depth between two of its own percentiles, which an increasing affine function
does not change: p has the picture that d would have, but for rounding to millimetres. That is coarsest at `NEAREST`, where
half a millimetre is 0.0006 of the range of 1/p, or 0.15 of the picture's 256 levels. The `inferno` colormap shows depth
itself: there the ratio of FARTHEST to NEAREST, which no relative model tells, bends the picture.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lerobot_gem.validation import require

DepthType = Literal["metric", "relative"]

NEAREST, FARTHEST = 1.0, 8.0  # metres of pseudo-depth, within what training takes for valid
_LARGEST = 65535  # millimetres in 16 bits

# Model types of transformers whose checkpoints all predict metres. DPT's do or don't (Intel/dpt-large is relative,
# facebook/dpt-dinov2-*-nyu metric), and its configuration does not tell.
_METRIC_TYPES = ("depth_pro", "glpn", "zoedepth")
# The first fusion layer has no residual to add: published DPT checkpoints leave its weights out.
_UNUSED_WEIGHTS = "neck.fusion_stage.layers.0.residual_layer1."


@dataclass
class DepthModelConfig:
    """The depth-estimation model.

    Attributes:
        pretrained: Hub id or folder of a model of transformers' `AutoModelForDepthEstimation`, with its image processor.
        revision: Branch, tag or commit on the Hub.
        depth_type: `metric` (it predicts metres) or `relative` (inverse depth up to scale and shift); None takes it from
            the model's configuration where that tells.
    """

    pretrained: str = "depth-anything/Depth-Anything-V2-Small-hf"
    revision: str | None = None
    depth_type: str | None = None

    def __post_init__(self) -> None:
        require(self.depth_type, (None, *get_args(DepthType)), "model.depth_type")


class DepthModel:
    """A model in millimetres.

    Args:
        estimate: transformers' depth-estimation pipeline.
        depth_type: What it predicts.
    """

    def __init__(self, estimate: Any, depth_type: DepthType) -> None:
        self.depth_type = depth_type
        self._estimate = estimate

    @classmethod
    def load(cls, config: DepthModelConfig, device: torch.device) -> "DepthModel":
        """Load a model.

        Args:
            config: Which.
            device: Where; on `meta` the files are looked at as elsewhere, but no weight is read, and nothing can be estimated.

        Raises:
            ValueError: It can't be loaded, lacks weights, or what it predicts is unknown or not `config.depth_type`.
        """
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation, pipeline

        name = config.pretrained
        try:
            processor = AutoImageProcessor.from_pretrained(name, revision=config.revision)
            # Not by the pipeline, which only logs what is missing. Half precision would cost millimetres.
            model, report = AutoModelForDepthEstimation.from_pretrained(
                name,
                revision=config.revision,
                dtype=torch.float32,
                output_loading_info=True,
                device_map=device if device.type == "meta" else None,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"Can't load the depth model {name!r}: {reason[0]} Expected the Hub id or folder of a depth-estimation "
                "model of transformers (config.json, model.safetensors, preprocessor_config.json). Without a network, "
                f"run `hf download {name}` where there is one, and pass the folder that it prints to --model.pretrained."
            ) from error
        lacking = sorted(key for key in report["missing_keys"] if not key.startswith(_UNUSED_WEIGHTS))
        lacking += sorted(str(entry[0]) for entry in report["mismatched_keys"])
        if lacking:
            raise ValueError(
                f"The depth model {name!r} lacks {len(lacking)} weights, or has them in another shape, such as "
                f"{lacking[0]!r}: expected a complete checkpoint, without which depth would be noise. Download it again."
            )
        estimate = pipeline("depth-estimation", model=model, image_processor=processor, device=device)
        return cls(estimate, _depth_type(config, model.config))

    def millimetres(self, images: Tensor, max_side: int | None = None) -> NDArray[np.uint16]:
        """Depth of images of one size, at that size or smaller.

        Args:
            images: (B, 3, H, W) uint8.
            max_side: Longest side of the depth; None is the images'.

        Returns:
            (B, H, W), or (B, h, w) in the same aspect ratio, in millimetres, pseudo-depth if the model is relative; 0 where
            the model predicts none (not finite, or not in front of the camera).

        Raises:
            ValueError: The image processor resizes to something else.
        """
        height, width = images.shape[-2:]
        pil_images = [Image.fromarray(image) for image in images.movedim(1, -1).numpy()]
        # The pipeline also paints depth, and warns where it is flat or not finite.
        with np.errstate(invalid="ignore", divide="ignore"):
            outputs = self._estimate(pil_images, batch_size=len(pil_images))
        predicted = torch.stack([output["predicted_depth"] for output in outputs]).float()
        if predicted.shape != (len(images), height, width):
            raise ValueError(
                f"{type(self._estimate.image_processor).__name__} resizes depth to {tuple(predicted.shape[1:])}: expected the "
                f"image's size {(height, width)}, without which pixels don't belong together."
            )
        metres = predicted if self.depth_type == "metric" else pseudo_depth(predicted)
        return to_millimetres(metres if max_side is None else shrink(metres, max_side))


def pseudo_depth(inverse: Tensor) -> Tensor:
    """Depth in metres between `NEAREST` and `FARTHEST` whose inverse is affine in a prediction; see the module.

    Args:
        inverse: (B, H, W), larger is nearer; not finite where there is none.

    Returns:
        (B, H, W); NaN where there is none, `FARTHEST` throughout where all is equal.
    """
    finite = inverse.isfinite()
    low = inverse.masked_fill(~finite, torch.inf).amin(dim=(1, 2), keepdim=True)
    high = inverse.masked_fill(~finite, -torch.inf).amax(dim=(1, 2), keepdim=True)
    span = high - low
    nearness = torch.where(span > 0, (inverse - low) / span, 0)
    depth = 1 / (1 / FARTHEST + nearness * (1 / NEAREST - 1 / FARTHEST))
    return depth.masked_fill(~finite, torch.nan)


def shrink(depth: Tensor, max_side: int) -> Tensor:
    """Depth (B, H, W) whose longest side is at most `max_side`: the nearest pixels, since others mix near and far."""
    longest = max(depth.shape[1:])
    if longest <= max_side:
        return depth
    size = [max(1, round(side * max_side / longest)) for side in depth.shape[1:]]
    return F.interpolate(depth[:, None], size=size, mode="nearest-exact")[:, 0]


def to_millimetres(metres: Tensor) -> NDArray[np.uint16]:
    """Whole millimetres of depth in metres; 0 where that is not finite or not positive, 65535 beyond."""
    values = (metres * 1000).round().clamp(0, _LARGEST)
    return torch.where(metres.isfinite(), values, 0).cpu().numpy().astype(np.uint16)


def _depth_type(config: DepthModelConfig, model: Any) -> DepthType:
    """What a model predicts, by its transformers configuration `model` or as the user says."""
    told: DepthType | None = "metric" if model.model_type in _METRIC_TYPES else None
    if model.model_type == "depth_anything":
        told = model.depth_estimation_type
    depth_type: Any = config.depth_type or told
    if depth_type is None:
        raise ValueError(
            f"The configuration of the depth model {config.pretrained!r} (type {model.model_type!r}) does not tell what "
            "it predicts: pass --model.depth_type=metric if that is metres, or --model.depth_type=relative if it is "
            "inverse depth up to scale and shift, as of MiDaS and DPT; the model's card says which."
        )
    if told is not None and depth_type != told:
        raise ValueError(
            f"model.depth_type is {depth_type!r}, but by its configuration the depth model {config.pretrained!r} is "
            f"{told}: leave --model.depth_type out."
        )
    return depth_type
