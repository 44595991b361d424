"""Configuration of GEM-VLA: stage 4 of GEM and inference."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import DiffuserSchedulerConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_gem.models.presets import get_preset

CONVENTIONS = ("layer_inputs", "hidden_states")
DTYPES = ("float32", "bfloat16")
LAYOUTS = ("separate", "concat")
SCHEDULERS = ("constant_with_warmup", "cosine", "linear")
TIME_DISTRIBUTIONS = ("logit_normal", "uniform")


def _require(value: Any, known: tuple[Any, ...], field_name: str) -> None:
    if value not in known:
        raise ValueError(f"{field_name}={value!r} is unknown: expected one of {', '.join(map(repr, known))}.")


@dataclass
class BackboneConfig:
    """The vision-language model.

    Attributes:
        pretrained: Hub id or folder of Qwen3-VL (or of a checkpoint in GEM-2B's layout) that training starts from.
            None starts from random weights of the preset. Not read when a policy checkpoint is loaded.
        conditioning: Which states the expert reads: "layer_inputs", what decoder layer i reads (transformers 4.57.3,
            which the release pins), or "hidden_states" (transformers 5); RELEASE.md has the difference.
        freeze_vision_tower: Keep the vision tower fixed, its patch merger included.
        freeze_language_model: Keep the decoder and its embeddings fixed.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        architecture: Qwen3VLConfig as a dict; written when the policy is built, so that a checkpoint needs no other
            file. Not to be set by hand.
    """

    pretrained: str | None = None
    conditioning: str = "layer_inputs"
    freeze_vision_tower: bool = False
    freeze_language_model: bool = False
    gradient_checkpointing: bool = False
    architecture: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _require(self.conditioning, CONVENTIONS, "backbone.conditioning")


@dataclass
class CamerasConfig:
    """How cameras become images of the prompt.

    Attributes:
        names: Observation keys of the cameras, in prompt order. None takes every RGB camera, in the data set's order.
        layout: "separate", one image and vision span per camera (the release's training), or "concat", all side by
            side in one image with the release's inference suffix (the release's inferencer).
        min_pixels: Smallest image area after resizing. None takes the preset's.
        max_pixels: Largest image area after resizing. None takes the preset's.
    """

    names: list[str] | None = None
    layout: str = "separate"
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        _require(self.layout, LAYOUTS, "cameras.layout")


@dataclass
class ExpertConfig:
    """The action expert (RDT). Sizes left at None are the preset's.

    Attributes:
        pretrained: File or folder of a released RDT that training starts from. None starts from random weights.
        hidden_size: Width.
        depth: Number of blocks.
        num_heads: Attention heads.
        num_kv_heads: Key/value heads.
        num_register_tokens: Learned tokens appended to the action tokens.
        norm_eps: Epsilon of the RMS norms.
        multiple_of: The feed-forward width is rounded up to a multiple of this.
        ffn_dim_multiplier: Factor on the feed-forward width; None is 1.
        conditioning_layers: Backbone state that each block reads, one index per block; None is 0, 1, ..., depth - 1.
        use_state: Condition on `observation.state`.
        state_noise_snr: Signal-to-noise ratio in dB of Gaussian noise on the normalised state in training; None is
            no noise. The release asks for 40 dB, but its code adds none.
        time_distribution: Flow time in training: "logit_normal" (release) or "uniform" (paper).
        flow_samples: Draws of noise and time per observation in training; the backbone runs once for all of them. 1 in
            the release; CogACT (arXiv 2411.19650) draws 8.
        num_inference_steps: Euler steps from noise to actions.
        freeze: Keep the expert fixed.
        action_dim: Size of an action; written when the policy is built, so that other data is noticed. Not to be set
            by hand.
    """

    pretrained: str | None = None
    hidden_size: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    num_register_tokens: int | None = None
    norm_eps: float | None = None
    multiple_of: int | None = None
    ffn_dim_multiplier: float | None = None
    conditioning_layers: list[int] | None = None
    use_state: bool = True
    state_noise_snr: float | None = None
    time_distribution: str = "logit_normal"
    flow_samples: int = 1
    num_inference_steps: int = 5
    freeze: bool = False
    action_dim: int | None = None

    def __post_init__(self) -> None:
        _require(self.time_distribution, TIME_DISTRIBUTIONS, "expert.time_distribution")
        if self.flow_samples < 1:
            raise ValueError(
                f"expert.flow_samples={self.flow_samples}: expected at least 1 (1 in the release)."
            )
        if self.num_inference_steps < 1:
            raise ValueError(
                f"expert.num_inference_steps={self.num_inference_steps}: expected at least 1 (5 in the release)."
            )


@PreTrainedConfig.register_subclass("gem_vla")
@dataclass
class GemVLAConfig(PreTrainedConfig):
    """GEM-VLA. Defaults are the release's (GEM.md, "Released hyper-parameters") unless said otherwise.

    Attributes:
        preset: Architecture by name: "tiny" (random weights, learns on two CPU cores), "2b" or "8b".
        backbone: The vision-language model.
        cameras: How cameras become images of the prompt.
        expert: The action expert.
        chunk_size: Actions predicted at once.
        n_action_steps: Actions of a chunk that are executed before the next is predicted; None is `chunk_size`.
        dtype: Precision of training, evaluation and rollout alike: "float32", or "bfloat16" (autocast; the weights
            stay float32).
        normalization_mapping: Actions to [-1, 1] by minimum and maximum as in the release; states are standardised,
            where the release feeds them raw (this port: joint angles in degrees would swamp the rest).
        optimizer_lr: Learning rate of the expert.
        optimizer_lr_backbone: Learning rate of the backbone; None is `optimizer_lr`.
        optimizer_betas: AdamW betas (torch's default; the release states none).
        optimizer_eps: AdamW epsilon.
        optimizer_weight_decay: AdamW weight decay.
        optimizer_grad_clip_norm: Largest norm of the gradient.
        scheduler_name: "constant_with_warmup" (the release, with no warm-up), "cosine" or "linear".
        scheduler_warmup_steps: Steps over which the learning rate rises to its value.
        rtc_config: Real-time chunking; set by lerobot-rollout.
        push_to_hub: Off, so that training needs no account; --policy.push_to_hub=true --policy.repo_id=user/name.
    """

    preset: str = "2b"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    cameras: CamerasConfig = field(default_factory=CamerasConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)

    chunk_size: int = 32
    n_action_steps: int | None = None
    dtype: str = "bfloat16"
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )

    optimizer_lr: float = 1e-5
    optimizer_lr_backbone: float | None = None
    optimizer_betas: tuple[float, float] = (0.9, 0.999)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 0.0
    optimizer_grad_clip_norm: float = 1.0
    scheduler_name: str = "constant_with_warmup"
    scheduler_warmup_steps: int = 0

    rtc_config: RTCConfig | None = None
    push_to_hub: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        preset = get_preset(self.preset)
        for name, value in vars(preset.expert).items():
            if getattr(self.expert, name) is None:
                setattr(self.expert, name, value)
        if self.expert.conditioning_layers is None:
            self.expert.conditioning_layers = list(range(self.expert.depth))
        self.cameras.min_pixels = self.cameras.min_pixels or preset.min_pixels
        self.cameras.max_pixels = self.cameras.max_pixels or preset.max_pixels
        if self.n_action_steps is None:
            self.n_action_steps = self.chunk_size
        self._validate()

    def _validate(self) -> None:
        _require(self.dtype, DTYPES, "dtype")
        _require(self.scheduler_name, SCHEDULERS, "scheduler_name")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size={self.chunk_size}: expected at least 1 (32 in the release).")
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps={self.n_action_steps}: expected 1 to chunk_size={self.chunk_size}, since no more "
                "actions than a chunk holds can be executed from it."
            )
        if len(self.expert.conditioning_layers) != self.expert.depth:
            raise ValueError(
                f"expert.conditioning_layers has {len(self.expert.conditioning_layers)} entries for "
                f"expert.depth={self.expert.depth} blocks: expected one index per block."
            )
        if self.backbone.pretrained is None and self.backbone.architecture is None and self.preset != "tiny":
            raise ValueError(
                f"preset={self.preset!r} needs pretrained weights and their tokenizer: set "
                f"--policy.backbone.pretrained={get_preset(self.preset).hub_id} (Hub id or a folder of it), or take "
                "--policy.preset=tiny, which learns from scratch."
            )

    def validate_features(self) -> None:
        """Check and settle what the policy reads and writes, once data set or environment are known.

        Raises:
            ValueError: No camera, an unknown camera, no action, or features that differ from the checkpoint's.
        """
        if self.action_feature is None:
            raise ValueError(
                f"No {ACTION!r} feature: expected one vector of actions per frame. Data sets without actions can "
                "pre-train the backbone, but not an action policy."
            )
        action_dim = self.action_feature.shape[0]
        if self.expert.action_dim not in (None, action_dim):
            raise ValueError(
                f"Actions have {action_dim} numbers here, but the policy was trained with {self.expert.action_dim}. "
                "Use data or an environment of the same robot, or train a new policy."
            )
        self.expert.action_dim = action_dim
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
        self.input_features: dict[str, PolicyFeature] = {
            name: feature
            for name, feature in self.input_features.items()
            if name in self.cameras.names or (name == OBS_STATE and self.expert.use_state)
        }

    def set_dataset_feature_metadata(self, features: dict[str, dict[str, Any]]) -> None:
        """LeRobot's hook, called with the data set's features before the policy is built.

        Depth is supervision, never an input: depth cameras leave the input features.
        """
        for name, feature in features.items():
            if (feature.get("info") or {}).get("is_depth_map"):
                self.input_features.pop(name, None)

    @property
    def state_feature(self) -> PolicyFeature | None:
        """The state that the expert is conditioned on, if any."""
        return self.robot_state_feature if self.expert.use_state else None

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)
