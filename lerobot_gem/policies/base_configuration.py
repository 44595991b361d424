"""What the configurations of both policies share: backbone, cameras, depth, precision and optimiser.

Fields hold what the user chose. What `None` stands for is filled in when a configuration is made, and read through the
typed properties. What a policy was built with is in the block `built`.
"""

import copy
import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs import NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig, OptimizerConfig
from lerobot.optim.schedulers import DiffuserSchedulerConfig
from lerobot.utils.constants import OBS_STATE

from lerobot_gem.models.presets import Preset, get_preset
from lerobot_gem.policies.base_options import (
    DEFAULT_COLORMAP,
    BackboneConfig,
    CamerasConfig,
    DepthConfig,
    DepthSupervision,
)
from lerobot_gem.policies.built import BuiltConfig
from lerobot_gem.policies.command_line import check_switches
from lerobot_gem.processing.dataset_names import check_names, flat_names, left_out, outside_observation
from lerobot_gem.processing.depth_cameras import DEPTH_SUFFIX, check_colormap, check_rgb, is_depth, pair_depth
from lerobot_gem.processing.depth_target import MIN_DEPTH_SIDE, Colormap
from lerobot_gem.processing.image_transforms import check_transforms
from lerobot_gem.processing.images import CameraImages
from lerobot_gem.storage.dataset_agreement import check_counts, check_first_pictures, check_rows
from lerobot_gem.storage.language_rows import names_places
from lerobot_gem.storage.video_files import check_videos
from lerobot_gem.training.low_bit import AdamW8bitConfig, check_torchao
from lerobot_gem.training.muon import MuonConfig
from lerobot_gem.training.processes import is_sharded
from lerobot_gem.training.stages import (
    DEPTH_LOSS_WEIGHT,
    FREEZE_FLAGS,
    FREEZE_LANGUAGE_MODEL,
    FREEZE_VISION_TOWER,
    STAGES,
    loss_weights,
)
from lerobot_gem.validation import ConfigurationError, checked, require, require_at_least

if TYPE_CHECKING:
    from lerobot_gem.policies.building import Sources

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
OPTIMIZERS = {"adamw": AdamWConfig, "adamw_8bit": AdamW8bitConfig, "muon": MuonConfig}
# Those whose updates reach weights in bfloat16.
BFLOAT16_OPTIMIZERS = ("adamw_8bit",)
SCHEDULERS = ("constant_with_warmup", "cosine", "linear")
# What a checkpoint's weights may depend on.
_VERSIONED = ("lerobot_policy_gem", "lerobot", "transformers", "diffusers", "torch")


@dataclass
class BaseGemConfig(PreTrainedConfig):
    """Base of both policies' configurations; their docstrings explain the fields."""

    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)

    preset: str = "2b"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    cameras: CamerasConfig = field(default_factory=CamerasConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    built: BuiltConfig = field(init=False, default_factory=BuiltConfig)

    dtype: str = "bfloat16"
    weights: str = "float32"
    micro_batch_size: int | None = None
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
        self._move_old_fields()
        preset = self.sizes
        # None alone: 0 is refused below.
        if self.cameras.min_pixels is None:
            self.cameras.min_pixels = preset.min_pixels
        if self.cameras.max_pixels is None:
            self.cameras.max_pixels = preset.max_pixels
        if self.depth.max_side is None:
            self.depth.max_side = preset.max_depth_side
        if self.depth.loss_weight is None:
            self.depth.loss_weight = self.default_depth_loss_weight
        if not 0 < self.cameras.min_pixels <= self.cameras.max_pixels:
            raise ValueError(
                f"cameras.min_pixels={self.cameras.min_pixels}, cameras.max_pixels={self.cameras.max_pixels}: expected areas of "
                "images, the smallest first."
            )
        if self.depth.max_side < MIN_DEPTH_SIDE:
            raise ValueError(
                f"depth.max_side={self.depth.max_side}: expected at least {MIN_DEPTH_SIDE}, which the autoencoder makes one "
                "latent of."
            )
        require(self.dtype, DTYPES, "dtype")
        require(self.weights, DTYPES, "weights")
        require_at_least(self, micro_batch_size=1, optimizer_lr=0, optimizer_lr_backbone=0)
        require(self.optimizer_name, tuple(OPTIMIZERS), "optimizer_name")
        require(self.scheduler_name, SCHEDULERS, "scheduler_name")
        if self.backbone.pretrained is None and self.preset != "tiny":
            raise ValueError(
                f"preset={self.preset!r} needs pretrained weights and their tokenizer: set "
                f"--policy.backbone.pretrained={preset.hub_id} (Hub id or a folder of it), or take "
                "--policy.preset=tiny, which learns from scratch."
            )
        if self.built.backbone and self.camera_names:
            self.settle_images()  # which version 0.1 did not write

    def _move_old_fields(self) -> None:
        """Move what a checkpoint of version 0.1 says to where it belongs now."""
        self.built.backbone = self.backbone.take_old().get("architecture", {})
        old = self.depth.take_old()
        self.built.generator = old.get("architecture", {})
        self.built.depth_cameras = old.get("pairs", {})
        if self.depth.colormap is None:
            self.depth.colormap = old.get("colouring", DEFAULT_COLORMAP)
            require(self.depth.colormap, get_args(Colormap), "depth.colouring")

    @property
    def sizes(self) -> Preset:
        """The preset."""
        return get_preset(self.preset)

    @cached_property
    def sources(self) -> "Sources":
        """The checkpoints that a new policy starts from, each opened once for its weights, sizes and tokenizer.

        Raises:
            FileNotFoundError: One is neither there nor on a Hub that can be reached.
            ValueError: One is of another model, or cut short.
        """
        from lerobot_gem.policies.building import Sources  # which loads transformers

        return Sources.open(self)

    @property
    def camera_names(self) -> list[str]:
        """Observation keys of the cameras, in prompt order; empty until they are settled."""
        return list(self.cameras.names or ())

    @property
    def images(self) -> CameraImages:
        """How camera frames become patches.

        Raises:
            ValueError: The policy was not built yet, and its patches are not known.
        """
        if not self.built.images:
            raise ValueError(
                "The images of the prompt are not known yet: expected the configuration of a policy that was built. Build the "
                "policy first (LeRobot's make_policy), then its processors."
            )
        return CameraImages(**self.built.images)

    def settle_images(self) -> None:
        """Fix how camera frames become patches, once the backbone is known.

        Raises:
            ValueError: config.json was damaged. Or a checkpoint was trained with others, and its processor, which LeRobot loads as it was saved, would go
                on with those.
        """
        try:
            vision = self.built.backbone["vision_config"]
            images = asdict(
                CameraImages(
                    cameras=self.camera_names,
                    layout=self.cameras.layout,
                    patch_size=vision["patch_size"],
                    temporal_patch_size=vision["temporal_patch_size"],
                    merge_size=vision["spatial_merge_size"],
                    min_pixels=self.cameras.min_pixels or self.sizes.min_pixels,
                    max_pixels=self.cameras.max_pixels or self.sizes.max_pixels,
                )
            )
        except (LookupError, TypeError) as error:
            raise ValueError(
                f"built.backbone describes no vision tower ({type(error).__name__}: {str(error)[:200]}): expected config.json as this package "
                "wrote it. Copy or download the checkpoint again."
            ) from error
        if self.built.images and self.built.images != images:
            changed = {name: value for name, value in images.items() if self.built.images[name] != value}
            trained = {name: self.built.images[name] for name in changed}
            raise ValueError(
                f"cameras: {changed} is not what the checkpoint was trained with, {trained}: its processor makes images and "
                "prompts for that. Leave out --policy.cameras.…, rename the dataset's cameras with --rename_map, or start a new "
                "policy from --policy.backbone.pretrained."
            )
        self.built.images = images

    @property
    def depth_supervision(self) -> DepthSupervision:
        """Which depth is learned, and how it becomes an image."""
        return DepthSupervision(
            self.built.depth_cameras,
            self.depth.unit,
            self.depth.colormap or DEFAULT_COLORMAP,
            self.depth.max_side or self.sizes.max_depth_side,
            self.depth.target,
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
        cameras if there is a depth loss. So do cameras outside `observation`, which LeRobot does not hand on.

        Raises:
            ValueError: A camera has other axes or channels than RGB, or a depth camera is not flagged as one. With a
                depth loss: it is missing, without RGB camera, of another aspect ratio or of unknown unit, or relative where
                the colormap is for metric depth.
        """
        check_names(features, needs_action="action" in STAGES[self.current_stage].losses)
        self.input_features = {
            name: feature
            for name, feature in (self.input_features or {}).items()
            if name not in features or not is_depth(features[name])
        }
        asked = self.camera_names
        for name in outside_observation(features):
            if name in self.input_features:
                logger.warning("%s", left_out(name, features))
                del self.input_features[name]
        self.built.depth_cameras = {}
        if "depth" in self.loss_weights:
            self.built.depth_cameras = pair_depth(features, self.depth.cameras)
            check_colormap(features, self.built.depth_cameras.values(), self.depth_supervision.colormap)
        for name in asked or list(self.image_features):
            if name in features and name in self.input_features:
                check_rgb(name, features[name], is_asked=name in asked)

    def check_dataset(self, meta: Any) -> None:
        """Compare the dataset with what the policy was built for, before hours of training are lost.

        Args:
            meta: `LeRobotDatasetMetadata`.

        Raises:
            ValueError: It is empty, or its parts do not agree (`storage.dataset_agreement`). With a depth loss: no
                camera has depth, all depth is zero, or image transforms would move pictures from their depth. With
                questions about places: such transforms, too.
        """
        if meta.total_frames == 0:
            raise ValueError(
                f"The dataset {meta.repo_id!r} is empty: expected at least one episode. Record some, or check "
                "--dataset.root and --dataset.episodes."
            )
        check_counts(meta)
        check_rows(meta)
        cameras = [name for name in self.camera_names if name in meta.features]
        check_first_pictures(meta, cameras, self.built.depth_cameras.values())
        check_videos(meta, [*cameras, *self.built.depth_cameras.values()])
        if self.asks_about_frames and names_places(meta):
            check_transforms(meta, "what questions and answers say of places")
        if "depth" not in self.loss_weights:
            return
        check_transforms(meta, "depth")
        pairs = {rgb: depth for rgb, depth in self.built.depth_cameras.items() if rgb in self.camera_names}
        if not pairs:
            raise ValueError(
                f"No depth for the cameras {self.camera_names} in {meta.repo_id!r}, but the depth loss has weight "
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

    def record_training(self, meta: Any) -> None:
        """Write down what whoever gets the checkpoint can't know: the data's rate and names, stage, versions, base model.

        Args:
            meta: `LeRobotDatasetMetadata` of the training dataset.
        """
        built = self.built
        built.fps = float(meta.fps)
        state = meta.features.get(OBS_STATE) if self.state_feature is not None else None
        built.state_names = []
        if state and state.get("names"):
            built.state_names = flat_names(OBS_STATE, state["names"], state["shape"][0])
        built.versions = {package: version(package) for package in _VERSIONED}
        if self.current_stage not in built.stages_done:
            built.stages_done = [*built.stages_done, self.current_stage]

    def record_sources(self) -> None:
        """Write down the stages behind the weights that a new policy starts from, and the Hub repository of its backbone."""
        self.built.stages_done = self.sources.stages_done
        backbone = self.sources.backbone
        if backbone is None or self.backbone.pretrained is None:
            return
        origin = backbone.config.get("built", {})
        self.built.base_model, self.built.base_revision = (
            origin.get(name, "") for name in ("base_model", "base_revision")
        )
        self.record_base(self.backbone.pretrained)

    def record_base(self, pretrained: str | Path, revision: str | None = None) -> None:
        """Write down the Hub repository that training starts from; a folder is not one.

        Args:
            pretrained: Hub id or folder.
            revision: Branch, tag or commit of a Hub id; None is its main branch.
        """
        if Path(pretrained).exists():
            return
        config = try_to_load_from_cache(str(pretrained), CONFIG_NAME, revision=revision)
        self.built.base_model = str(pretrained)
        self.built.base_revision = Path(config).parent.name if isinstance(config, str) else (revision or "")

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config.json, without where its author pushes the policy: who goes on from it would push there, too.

        And without the revision of what training started from, which LeRobot would look for in the policy's own repository.
        LeRobot keeps both in train_config.json, from which training is resumed.
        """
        stranger = copy.copy(self)
        stranger.push_to_hub, stranger.repo_id, stranger.private = False, None, None
        stranger.pretrained_revision = None
        super(BaseGemConfig, stranger)._save_pretrained(save_directory)

    @property
    def current_stage(self) -> str:
        """The stage that training the policy is (`training/stages.py`)."""
        raise NotImplementedError

    @property
    def default_depth_loss_weight(self) -> float:
        """Lambda where the user gives none."""
        raise NotImplementedError

    @property
    def depth_loss_weight(self) -> float:
        """Lambda."""
        weight = self.depth.loss_weight
        return self.default_depth_loss_weight if weight is None else weight

    @property
    def loss_weights(self) -> dict[str, float]:
        """Losses that apply, with their weights."""
        return loss_weights(self.current_stage, self.weight_fields)

    @property
    def weight_fields(self) -> dict[str, float]:
        """Values of the fields that hold the weight of a loss, by name."""
        return {DEPTH_LOSS_WEIGHT: self.depth_loss_weight}

    @property
    def asks_about_frames(self) -> bool:
        """Whether questions about the training dataset's own frames are learned."""
        return "language" in self.loss_weights

    @property
    def trainable_dtype(self) -> str:
        """Type that layers which are trained are stored in; what was trained in bfloat16 may act in float32."""
        return self.weights if self.dtype == "bfloat16" else self.dtype

    @property
    def trainable_parts(self) -> set[str]:
        """Parts that are trained (`training/stages.py`): those of the stage, unless the freeze flags say otherwise."""
        parts = set(STAGES[self.current_stage].trainable)
        for flag, frozen in (
            (FREEZE_VISION_TOWER, self.backbone.freeze_vision_tower),
            (FREEZE_LANGUAGE_MODEL, self.backbone.freeze_language_model),
        ):
            flagged = FREEZE_FLAGS[flag]
            if frozen is not None:
                parts = parts - flagged if frozen else parts | flagged
        return parts

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
        # LeRobot asks for it before it reads data, of what is trained alone.
        check_switches(self)
        self._check_optimizer()
        return OPTIMIZERS[self.optimizer_name](
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def _check_optimizer(self) -> None:
        """Raise a ConfigurationError if the weights can't be trained so, an ImportError if the optimiser is not installed."""
        if not self.optimizer_lr and not self.optimizer_lr_backbone:
            raise ConfigurationError(
                f"optimizer_lr={self.optimizer_lr} with optimizer_lr_backbone={self.optimizer_lr_backbone}: nothing would be trained. "
                "Expected a rate above 0 (1e-05 by default)."
            )
        if self.weights == "bfloat16" and self.optimizer_name not in BFLOAT16_OPTIMIZERS:
            raise ConfigurationError(
                f"weights='bfloat16' with optimizer_name={self.optimizer_name!r}, whose updates are mostly too small for bfloat16 "
                "and would be rounded away: expected optimizer_name='adamw_8bit', which rounds stochastically, or "
                "weights='float32'."
            )
        if self.weights == "bfloat16" and self.dtype != "bfloat16":
            raise ConfigurationError(
                f"weights='bfloat16' with dtype={self.dtype!r}: expected dtype='bfloat16', since weights are not stored in less "
                "than they are computed in, or weights='float32'."
            )
        if self.optimizer_name == "muon" and is_sharded():
            raise ConfigurationError(
                "optimizer_name='muon' under FSDP, which gives each GPU a piece of every matrix, while Muon updates whole ones: "
                "expected optimizer_name='adamw'."
            )
        if self.optimizer_name == "adamw_8bit":
            check_torchao()
            if is_sharded():
                raise ConfigurationError(
                    "optimizer_name='adamw_8bit' under FSDP, whose shards LeRobot 0.6.1 can't save from it: expected "
                    "optimizer_name='adamw' and weights='float32', which FSDP divides among the GPUs."
                )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)
