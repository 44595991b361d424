"""Configuration of GEM-VLA: stage 4 of GEM and inference."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, get_args

from lerobot.configs import PolicyFeature, PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_gem.models.presets import TimeDistribution, get_preset
from lerobot_gem.policies.base_configuration import GemPartsConfig, checked, require
from lerobot_gem.training.stages import loss_weights


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
        time_distribution: Flow time in training: "logit_normal" (release), "uniform" (paper), or "beta", Beta(1, 1.5), which
            dwells on noise, where only the observation tells what to do (pi0, arXiv 2410.24164, appendix B).
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

    @checked
    def __post_init__(self) -> None:
        require(self.time_distribution, get_args(TimeDistribution), "expert.time_distribution")
        if self.flow_samples < 1:
            raise ValueError(
                f"expert.flow_samples={self.flow_samples}: expected at least 1 (1 in the release)."
            )
        if any(layer < 0 for layer in self.conditioning_layers or []):
            raise ValueError(
                f"expert.conditioning_layers={self.conditioning_layers}: expected layers from 0 (the embeddings)."
            )
        if self.num_inference_steps < 1:
            raise ValueError(
                f"expert.num_inference_steps={self.num_inference_steps}: expected at least 1 (5 in the release)."
            )


@PreTrainedConfig.register_subclass("gem_vla")
@dataclass
class GemVLAConfig(GemPartsConfig):
    """GEM-VLA. Defaults are the release's (docs/provenance.md) unless said otherwise.

    Attributes:
        preset: Architecture by name: "tiny" (random weights, learns on two CPU cores), "2b" or "8b".
        backbone: The vision-language model.
        cameras: How cameras become images of the prompt.
        depth: The depth generator, which is built only for training with `depth.loss_weight` above 0.
        expert: The action expert.
        chunk_size: Actions predicted at once.
        n_action_steps: Actions of a chunk that are executed before the next is predicted; None is `chunk_size`.
        dtype: Precision of training, evaluation and rollout alike: "float32", or "bfloat16" (autocast; the weights
            stay float32).
        normalization_mapping: Actions to [-1, 1] by minimum and maximum as in the release; states are standardised,
            where the release feeds them raw (this port: joint angles in degrees would swamp the rest).
        optimizer_name: "adamw", or "muon", which learns from scratch with fewer samples (docs/demo.md).
        optimizer_lr: Learning rate of the expert.
        optimizer_lr_backbone: Learning rate of the backbone; None is `optimizer_lr`.
        optimizer_betas: AdamW's betas (torch's default; the release states none).
        optimizer_eps: AdamW's epsilon.
        optimizer_weight_decay: Weight decay.
        optimizer_grad_clip_norm: Largest norm of the gradient.
        scheduler_name: "constant_with_warmup" (the release, with no warm-up), "cosine" or "linear".
        scheduler_warmup_steps: Steps over which the learning rate rises to its value.
        rtc_config: Real-time chunking; set by lerobot-rollout.
        action_feature_names: Names of an action's numbers; written by LeRobot, which orders them as the robot does.
        push_to_hub: Off, so that training needs no account; --policy.push_to_hub=true --policy.repo_id=user/name.
    """

    expert: ExpertConfig = field(default_factory=ExpertConfig)

    chunk_size: int = 32
    n_action_steps: int | None = None

    rtc_config: RTCConfig | None = None
    action_feature_names: list[str] | None = None

    @checked
    def __post_init__(self) -> None:
        super().__post_init__()
        preset = get_preset(self.preset)
        for name, value in vars(preset.expert).items():
            if getattr(self.expert, name) is None:
                setattr(self.expert, name, value)
        if self.expert.conditioning_layers is None:
            self.expert.conditioning_layers = list(range(self.expert.depth))
        if self.depth.loss_weight is None:
            self.depth.loss_weight = 0.0
        if self.n_action_steps is None:
            self.n_action_steps = self.chunk_size
        self._validate()

    def _validate(self) -> None:
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
        if self.depth.loss_weight and self.cameras.layout != "separate":
            raise ValueError(
                f"cameras.layout={self.cameras.layout!r} with depth.loss_weight={self.depth.loss_weight}: expected "
                "'separate', since each image has its own depth map; or set --policy.depth.loss_weight=0."
            )

    def validate_features(self) -> None:
        """Check and settle what the policy reads and writes, once dataset or environment are known.

        Raises:
            ValueError: No camera, an unknown camera, no action, or features that differ from the checkpoint's.
        """
        if self.action_feature is None:
            raise ValueError(
                f"No {ACTION!r} feature: expected one vector of actions per frame. Datasets without actions can "
                "pre-train the backbone, but not an action policy."
            )
        action_dim = self.action_feature.shape[0]
        if self.expert.action_dim not in (None, action_dim):
            raise ValueError(
                f"Actions have {action_dim} numbers here, but the policy was trained with {self.expert.action_dim}. "
                "Use data or an environment of the same robot, or train a new policy."
            )
        self.expert.action_dim = action_dim
        self.settle_cameras()
        self.input_features: dict[str, PolicyFeature] = {
            name: feature
            for name, feature in self.input_features.items()
            if name in self.cameras.names or (name == OBS_STATE and self.expert.use_state)
        }

    @property
    def loss_weights(self) -> dict[str, float]:
        """Losses that apply, with their weights."""
        return loss_weights("action", self.depth.loss_weight)

    @property
    def state_feature(self) -> PolicyFeature | None:
        """The state that the expert is conditioned on, if any."""
        return self.robot_state_feature if self.expert.use_state else None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    def check_dataset(self, meta: Any) -> None:
        super().check_dataset(meta)
        if self.state_feature is None:
            return
        if OBS_STATE not in meta.features:
            return  # --rename_map may give it; if not, the first batch says so (processing/steps.py)
        found = tuple(meta.features[OBS_STATE]["shape"])
        if found != tuple(self.state_feature.shape):
            raise ValueError(
                f"{OBS_STATE} has shape {found} in the dataset {meta.repo_id!r}, but the policy was trained "
                f"with {tuple(self.state_feature.shape)}. Use data of the same robot, or train a new policy."
            )

    def check_untrained(self, parts: Collection[str]) -> None:
        """Raise a ValueError if parts of the depth generator have random weights."""
        if parts:
            raise ValueError(
                f"depth.loss_weight={self.depth.loss_weight}, but there are no weights for {', '.join(sorted(parts))} of "
                "the depth generator: expected --policy.backbone.pretrained=<gem checkpoint> (stages 1 to 3), whose "
                "generator is taken along, or --policy.depth.loss_weight=0."
            )
