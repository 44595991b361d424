"""What the configurations of both policies share: backbone, cameras, depth, precision and optimiser."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, get_args

import numpy as np
from draccus.utils import ParsingError
from lerobot.configs import NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig, OptimizerConfig
from lerobot.optim.schedulers import DiffuserSchedulerConfig

from lerobot_gem.models.presets import StateConvention, get_preset
from lerobot_gem.processing.depth_cameras import DEPTH_SUFFIX, METRES, is_depth, not_flagged, pair_depth
from lerobot_gem.training.muon import MuonConfig

COLOURINGS = ("spectral", "inferno")
DTYPES = ("float32", "bfloat16")
LAYOUTS = ("separate", "concat")
OPTIMIZERS = {"adamw": AdamWConfig, "muon": MuonConfig}
SCHEDULERS = ("constant_with_warmup", "cosine", "linear")


class ConfigurationError(ParsingError):
    """A configuration that makes no sense.

    No ValueError: of those, draccus says but "Couldn't instantiate class GemConfig using the given arguments" on the
    command line, and keeps the reason to itself.
    """


def checked[T](post_init: Callable[[T], None]) -> Callable[[T], None]:
    """Decorate a `__post_init__` so that its ValueErrors become ConfigurationErrors."""

    @wraps(post_init)
    def wrapped(self: T) -> None:
        try:
            post_init(self)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    return wrapped


def require(value: Any, known: tuple[Any, ...], field_name: str) -> None:
    """Raise a ValueError that names the field unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{field_name}={value!r} is unknown: expected one of {', '.join(map(repr, known))}.")


@dataclass
class BackboneConfig:
    """The vision-language model.

    Attributes:
        pretrained: Hub id or folder that training starts from: Qwen3-VL, GEM-2B's layout, or a `gem` checkpoint. None
            starts from random weights of the preset. Not read when a policy checkpoint is loaded.
        conditioning: Which states the expert reads: "layer_inputs", what decoder layer i reads (transformers 4.57.3,
            which the release pins), or "hidden_states" (transformers 5); see models/backbone.py.
        freeze_vision_tower: Keep the vision tower fixed, its patch mergers included. None is as the stage says
            (stages.py): fixed but for the mergers in `joint`, learning in `gem_vla`.
        freeze_language_model: Keep the decoder and its embeddings fixed. None is as the stage says.
        gradient_checkpointing: Recompute activations in the backward pass, those of the depth generator too: less memory,
            about a third more time.
        architecture: Qwen3VLConfig as a dict; written when the policy is built, so that a checkpoint needs no other
            file. Not to be set by hand.
    """

    pretrained: str | None = None
    conditioning: str = "layer_inputs"
    freeze_vision_tower: bool | None = None
    freeze_language_model: bool | None = None
    gradient_checkpointing: bool = False
    architecture: dict[str, Any] | None = None

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
class DepthConfig:
    """The depth generator and what it learns from.

    Attributes:
        pretrained: Hub id or folder that the generator starts from: a SANA pipeline (its connector starts fresh),
            GEM-2B's layout, or a `gem` checkpoint. None takes it from `backbone.pretrained` if that has one, else
            random weights of the preset. Not read when a policy checkpoint is loaded.
        autoencoder: Folder of a diffusers `AutoencoderDC` that replaces the one of `pretrained`, such as
            `lerobot-gem-train-autoencoder` writes.
        loss_weight: Lambda, the weight of the depth loss beside another loss. None is 0.1 (paper) in `gem`, and 0 in
            `gem_vla`, which then needs no depth and never builds a generator; 0.1 there too in the paper.
        colouring: How depth becomes a picture: "spectral" (the release's VLM stages) or "inferno" (its VLA stage).
        max_side: Longest side of the picture, in pixels. None takes the preset's.
        cameras: RGB key -> depth key. None pairs `X` with `X_depth`.
        unit: Unit of depth in a batch, "mm" or "m"; must be that of --dataset.depth_output_unit.
        guidance_scale: Weight of classifier-free guidance when depth is generated; 1 is none.
        num_inference_steps: Euler steps from noise to depth.
        architecture: Sizes of the generator; written when it is built. Not to be set by hand.
        pairs: RGB key -> depth key as found in the dataset; written when the dataset is bound. Not to be set by
            hand.
    """

    pretrained: str | None = None
    autoencoder: str | None = None
    loss_weight: float | None = None
    colouring: str = "spectral"
    max_side: int | None = None
    cameras: dict[str, str] | None = None
    unit: str = "mm"
    guidance_scale: float = 5.0
    num_inference_steps: int = 30
    architecture: dict[str, Any] | None = None
    pairs: dict[str, str] = field(default_factory=dict)

    @checked
    def __post_init__(self) -> None:
        require(self.colouring, COLOURINGS, "depth.colouring")
        require(self.unit, tuple(METRES), "depth.unit")
        if self.loss_weight is not None and self.loss_weight < 0:
            raise ValueError(f"depth.loss_weight={self.loss_weight}: expected 0 or more (0.1 in the paper).")
        if self.num_inference_steps < 1:
            raise ValueError(
                f"depth.num_inference_steps={self.num_inference_steps}: expected at least 1 (30 in the release)."
            )


@dataclass
class GemPartsConfig(PreTrainedConfig):
    """Base of both policies' configurations; their docstrings explain the fields."""

    preset: str = "2b"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    cameras: CamerasConfig = field(default_factory=CamerasConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)

    dtype: str = "bfloat16"
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )

    optimizer_name: str = "adamw"
    optimizer_lr: float = 1e-5
    optimizer_lr_backbone: float | None = None
    optimizer_betas: tuple[float, float] = (0.9, 0.999)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 0.0
    optimizer_grad_clip_norm: float = 1.0
    scheduler_name: str = "constant_with_warmup"
    scheduler_warmup_steps: int = 0

    push_to_hub: bool = False

    @checked
    def __post_init__(self) -> None:
        super().__post_init__()
        preset = get_preset(self.preset)
        self.cameras.min_pixels = self.cameras.min_pixels or preset.min_pixels
        self.cameras.max_pixels = self.cameras.max_pixels or preset.max_pixels
        self.depth.max_side = self.depth.max_side or preset.max_depth_side
        if not 0 < self.cameras.min_pixels <= self.cameras.max_pixels:
            raise ValueError(
                f"cameras.min_pixels={self.cameras.min_pixels}, cameras.max_pixels={self.cameras.max_pixels}: expected areas of "
                "images, the smallest first."
            )
        if self.depth.max_side < 32:
            raise ValueError(
                f"depth.max_side={self.depth.max_side}: expected at least 32, which the autoencoder makes one latent of."
            )
        require(self.dtype, DTYPES, "dtype")
        require(self.optimizer_name, tuple(OPTIMIZERS), "optimizer_name")
        require(self.scheduler_name, SCHEDULERS, "scheduler_name")
        if self.backbone.pretrained is None and self.backbone.architecture is None and self.preset != "tiny":
            raise ValueError(
                f"preset={self.preset!r} needs pretrained weights and their tokenizer: set "
                f"--policy.backbone.pretrained={preset.hub_id} (Hub id or a folder of it), or take "
                "--policy.preset=tiny, which learns from scratch."
            )

    def settle_cameras(self) -> None:
        """Fix the cameras of the prompt, once dataset or environment are known.

        Raises:
            ValueError: No camera, or an unknown one.
        """
        cameras = list(self.image_features)
        if not cameras:
            raise ValueError(
                "No camera: expected at least one RGB feature named observation.images.<name>. "
                f"The policy was given {sorted(self.input_features or {})}."
            )
        if self.cameras.names is None:
            self.cameras.names = cameras
        unknown = [name for name in self.cameras.names if name not in cameras]
        if unknown or not self.cameras.names:
            raise ValueError(f"cameras.names has unknown entries {unknown}: expected some of {cameras}.")

    def set_dataset_feature_metadata(self, features: dict[str, dict[str, Any]]) -> None:
        """LeRobot's hook, called with the dataset's features before the policy is built.

        Depth is supervision, never an input: depth cameras leave the input features, and are paired with the RGB
        cameras if there is a depth loss.

        Raises:
            ValueError: A depth camera is not flagged as one. With a depth loss: it is missing, without RGB camera, of
                another aspect ratio or of unknown unit.
        """
        for name, feature in features.items():
            if is_depth(feature):
                self.input_features.pop(name, None)
        if "depth" in self.loss_weights:
            self.depth.pairs = pair_depth(features, self.depth.cameras)
            return
        self.depth.pairs = {}
        for name in self.input_features:
            if name.endswith(DEPTH_SUFFIX) and {name, name.removesuffix(DEPTH_SUFFIX)} <= features.keys():
                raise not_flagged(name)  # it would be taken for one more camera

    def check_dataset(self, meta: Any) -> None:
        """Compare the dataset with what the policy was built for, before hours of training are lost.

        Args:
            meta: `LeRobotDatasetMetadata`.

        Raises:
            ValueError: It is empty; or with a depth loss, no camera has depth, or all depth is zero.
        """
        if meta.total_frames == 0:
            raise ValueError(
                f"The dataset {meta.repo_id!r} is empty: expected at least one episode. Record some, or check "
                "--dataset.root and --dataset.episodes."
            )
        if "depth" not in self.loss_weights:
            return
        pairs = {rgb: depth for rgb, depth in self.depth.pairs.items() if rgb in self.cameras.names}
        if not pairs:
            raise ValueError(
                f"No depth for the cameras {self.cameras.names} in {meta.repo_id!r}, but the depth loss has weight "
                f"{self.loss_weights['depth']}: expected a depth camera <camera>{DEPTH_SUFFIX} flagged is_depth_map, or "
                "one named in --policy.depth.cameras. Label the data with depth (lerobot-gem-label-depth), or train "
                "without the depth loss (--policy.depth.loss_weight=0, not in the stages connector and generator). Depth is "
                "found by the dataset's own names, which --rename_map does not change."
            )
        for depth in pairs.values():
            largest = ((meta.stats or {}).get(depth) or {}).get("max")
            # Statistics of depth can be wrong where it was stored as PNG, but none are zero unless all depth is.
            if largest is not None and float(np.max(largest)) == 0:
                raise ValueError(
                    f"{depth!r} is zero in the whole dataset {meta.repo_id!r}: expected distances, with 0 only where "
                    "there is none. Record or label it again."
                )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Losses that apply, with their weights."""
        raise NotImplementedError

    @property
    def state_feature(self) -> PolicyFeature | None:
        """The state that the policy is conditioned on, if any."""
        return None

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int] | None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> OptimizerConfig:
        return OPTIMIZERS[self.optimizer_name](
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)
