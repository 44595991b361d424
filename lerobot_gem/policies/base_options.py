"""The blocks of options that both policies have: backbone, cameras, depth."""

import math
from dataclasses import dataclass
from typing import get_args

from lerobot_gem.models.presets import StateConvention
from lerobot_gem.policies.old_configurations import OldBackboneFields, OldDepthFields
from lerobot_gem.processing.depth_cameras import METRES
from lerobot_gem.processing.depth_target import Colormap, Target
from lerobot_gem.validation import checked, require

LAYOUTS = ("separate", "concat")
# Far more than makes sense; a stranger's config.json may ask for more.
MOST_STEPS = 1000
DEFAULT_COLORMAP: Colormap = "spectral"


@dataclass
class BackboneConfig(OldBackboneFields):
    """The vision-language model.

    Attributes:
        pretrained: Hub id or folder that training starts from: Qwen3-VL, GEM-2B's format, or a `gem` checkpoint; needed for
            `2b` and `8b`. None starts from random weights of `tiny`. Not read when a policy checkpoint is loaded.
        conditioning: Which states the expert reads: "layer_inputs", what decoder layer i reads (transformers 4.57.3,
            which the release pins), or "hidden_states" (transformers 5); see models/conditioning.py.
        freeze_vision_tower: Freeze the vision tower, its patch mergers included; false makes both trainable. None is as the stage says
            (docs/how_to/pretrain.md): frozen, except the mergers, in `joint`, trainable in `gem_vla`.
        freeze_language_model: Freeze the decoder and its embeddings. None is as the stage says.
        gradient_checkpointing: Recompute activations in the backward pass, those of the depth generator too: less memory,
            about a third more time. True in the `2b` and `8b` files for `gem_vla` and for stage 3.
    """

    pretrained: str | None = None
    conditioning: StateConvention = "layer_inputs"
    freeze_vision_tower: bool | None = None
    freeze_language_model: bool | None = None
    gradient_checkpointing: bool = False

    @checked
    def __post_init__(self) -> None:
        require(self.conditioning, get_args(StateConvention), "backbone.conditioning")


@dataclass
class CamerasConfig:
    """How cameras become images of the prompt.

    Attributes:
        names: Observation keys of the cameras, in prompt order. None takes every RGB camera, in the dataset's order.
        layout: "separate", one image and vision span per camera (the release's training), or "concat", all side by
            side in one image with the release's inference suffix (the release's inferencer).
        min_pixels: Smallest image area after resizing. None takes the preset's.
        max_pixels: Largest image area after resizing. None takes the preset's.
    """

    names: list[str] | None = None
    layout: str = "separate"
    min_pixels: int | None = None
    max_pixels: int | None = None

    @checked
    def __post_init__(self) -> None:
        require(self.layout, LAYOUTS, "cameras.layout")


@dataclass
class DepthConfig(OldDepthFields):
    """The depth generator and what it learns from.

    Attributes:
        pretrained: Hub id or folder that the generator starts from: a SANA pipeline (its connector starts fresh),
            GEM-2B's format, or a `gem` checkpoint. None takes it from `backbone.pretrained` if that has one, else
            random weights of the preset. Not read when a policy checkpoint is loaded.
        autoencoder: Folder of a diffusers `AutoencoderDC`. None is the one of `pretrained`; without that, of `tiny` the
            one in this package.
        loss_weight: Lambda, the weight of the depth loss beside another loss. None is 0.1 (paper) in `gem`, and 0 in
            `gem_vla`; 0.1 there too in the paper. With 0, stage 3 and `gem_vla` need no depth and build no generator. Stages 1
            and 2, which have no other loss, ignore it.
        target: What the generator learns to paint of a camera: its "depth", or "rgb", its picture itself, which is the control
            arm of GEM's ablation (arXiv 2605.28548) and no way to train a policy. The data needs depth for "rgb" as well:
            both learn from the same frames. The autoencoder of `tiny` hardly knows pictures: `examples/train_tiny_autoencoder.py
            --rgb` trains one that knows both, for both arms.
        colormap: How depth becomes an image: "spectral" (the release's VLM stages; None is this) or "inferno" (its VLA stage), which is
            for metric depth alone (docs/how_to/label_depth.md).
        max_side: Longest side of the picture, in pixels. None takes the preset's.
        cameras: The cameras whose depth is learned, RGB key -> depth key: `'{"observation.images.front": "observation.images.distance"}'`.
            None pairs every `X` with `X_depth`. The files `gem_vla_*_depth.yaml` name LIBERO's first camera, as in the release.
        share: Share of the images with depth whose depth is learned, drawn anew in each step: less time in the generator, and
            on average the same gradient. In validation all is computed.
        unit: Unit of depth in a batch, "mm" or "m"; must be that of --dataset.depth_output_unit.
        guidance_scale: Weight of classifier-free guidance when depth is generated; 1 is none.
        num_inference_steps: Euler steps from noise to depth.
    """

    pretrained: str | None = None
    autoencoder: str | None = None
    loss_weight: float | None = None
    target: Target = "depth"
    colormap: Colormap | None = None
    max_side: int | None = None
    cameras: dict[str, str] | None = None
    share: float = 1.0
    unit: str = "mm"
    guidance_scale: float = 5.0
    num_inference_steps: int = 30

    @checked
    def __post_init__(self) -> None:
        require(self.target, get_args(Target), "depth.target")
        require(self.colormap, (None, *get_args(Colormap)), "depth.colormap")
        require(self.unit, tuple(METRES), "depth.unit")
        if self.loss_weight is not None and not self.loss_weight >= 0:
            raise ValueError(f"depth.loss_weight={self.loss_weight}: expected 0 or more (0.1 in the paper).")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"depth.share={self.share}: expected a share of the images, above 0 and at most 1."
            )
        if not 0 <= self.guidance_scale < math.inf:
            raise ValueError(
                f"depth.guidance_scale={self.guidance_scale}: expected a finite weight, 0 or more (5 in the release; 1 is no guidance)."
            )
        if not 1 <= self.num_inference_steps <= MOST_STEPS:
            raise ValueError(
                f"depth.num_inference_steps={self.num_inference_steps}: expected 1 to {MOST_STEPS} (30 in the release)."
            )


@dataclass(frozen=True)
class DepthSupervision:
    """Which depth is learned, and how it becomes an image.

    Attributes:
        cameras: RGB key -> depth key.
        unit: Of depth in a batch, "mm" or "m".
        colormap: How depth becomes an image.
        max_side: Longest side of that image, in pixels.
        target: Whether the generator paints that image, or the camera's picture at the same size ("rgb").
    """

    cameras: dict[str, str]
    unit: str
    colormap: Colormap
    max_side: int
    target: Target = "depth"
