"""Configuration of GEM-VLA: stage 4 of GEM and inference."""

import copy
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lerobot.configs import NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_gem.models.presets import ExpertArchitecture, Reading
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.expert_options import DistillationConfig, ExpertConfig
from lerobot_gem.policies.token_options import ActionTokensConfig, CoTrainingConfig
from lerobot_gem.processing.dataset_names import flat_names, no_state, state_like
from lerobot_gem.processing.statistics import Limits, still_dimensions
from lerobot_gem.storage.statistics import check_statistics
from lerobot_gem.training.stages import (
    BACKBONE_PARTS,
    FREEZE_EXPERT,
    FREEZE_FLAGS,
    LANGUAGE_LOSS_WEIGHT,
    TOKENS_LOSS_WEIGHT,
)
from lerobot_gem.validation import checked, require

logger = logging.getLogger(__name__)

# Far more than makes sense: lists of this length are made before the weights, which would show a wrong number, are read.
_LONGEST_CHUNK = 10_000
QUANTIZATIONS = (None, "int8")


@PreTrainedConfig.register_subclass("gem_vla")
@dataclass
class GemVLAConfig(BaseGemConfig):
    """GEM-VLA. Defaults are the release's unless said otherwise (docs/reference/configuration.md).

    Attributes:
        preset: Architecture by name: "tiny" (random weights, learns on two CPU cores), "2b" or "8b".
        backbone: The vision-language model.
        cameras: How cameras become images of the prompt.
        depth: The depth generator, which is built only for training with `depth.loss_weight` above 0.
        expert: The action expert.
        action_tokens: Actions in tokens, which the backbone writes.
        co_training: Questions and answers that are learned beside actions.
        distillation: Learning from another policy to act in one step.
        chunk_size: Actions predicted at once.
        n_action_steps: Actions of a chunk that are executed before the next is predicted; None is `chunk_size`.
        dtype: Precision of training, evaluation and rollout alike: "float32", or "bfloat16" (autocast). What autocast casts is stored
            in bfloat16 where it is frozen, and by a policy that was loaded to act.
        weights: How the layers that are trained are stored: "float32", or "bfloat16" with `optimizer_name` "adamw_8bit", at less
            than half the memory (docs/reference/memory.md). Frozen layers are stored in `dtype`.
        micro_batch_size: Samples of a batch whose activations are in memory at a time, a divisor of the batch; gradients are
            those of the whole batch, at the price of a second pass forward. None is all of them.
        normalization_mapping: Actions to [-1, 1] by minimum and maximum as in the release; states are standardised,
            where the release feeds them raw (this port: joint angles in degrees would swamp the rest).
        camera_dropout: Probability to leave each camera out of the prompt in training; one always stays. 0.1 in the release
            (`cond_mask_prob` in its GEM-VLA/train/dataset.py) and in the `2b` and `8b` files.
        instruction_dropout: Probability to empty the instruction in training; 0.1 in the release, by the same field, and in those files.
        outlier_limit: Largest size of a number of a normalised state or action, in standard deviations or half ranges; what
            lies beyond is an outlier, and is cut off. With it, a number of the state that stands still in the dataset, or
            nearly, is read as its mean. None does neither.
        optimizer_name: "adamw"; "adamw_8bit", torchao's, whose state takes a quarter of the memory; or "muon", which learns from
            scratch with fewer samples (results/demo/README.md).
        optimizer_lr: Learning rate of the expert, of the depth generator, and of the backbone unless `optimizer_lr_backbone` is set.
        optimizer_lr_backbone: Learning rate of the backbone; None is `optimizer_lr`.
        optimizer_betas: AdamW's betas (torch's default; the release states none).
        optimizer_eps: AdamW's epsilon.
        optimizer_weight_decay: Weight decay; 0.01 in the release's VLA scripts and in the `2b` and `8b` files.
        optimizer_grad_clip_norm: Largest norm of the gradient.
        scheduler_name: "constant_with_warmup" (the release, with no warm-up), "cosine" or "linear".
        scheduler_warmup_steps: Steps over which the learning rate rises to its value.
        compile_model: Compile what acts (docs/how_to/act_faster.md): seconds to minutes at the first chunk, for faster chunks after it.
            lerobot-rollout sets it from its own --use_torch_compile. Training is not compiled.
        quantization: "int8" computes the linear layers of vision tower and decoder in 8 bits when the policy acts, on a CPU: faster, in
            less memory, not quite the same actions (docs/how_to/act_faster.md). None does not. Training is not quantised.
        rtc_config: Real-time chunking; set by lerobot-rollout.
        action_feature_names: Names of an action's numbers; written by LeRobot, which orders them as the robot does.
        push_to_hub: Off, so that training needs no account; --policy.push_to_hub=true --policy.repo_id=user/name.
        built: What the policy was built with; not to be set.
    """

    expert: ExpertConfig = field(default_factory=ExpertConfig)
    action_tokens: ActionTokensConfig = field(default_factory=ActionTokensConfig)
    co_training: CoTrainingConfig = field(default_factory=CoTrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    chunk_size: int = 32
    n_action_steps: int | None = None
    camera_dropout: float = 0.0
    instruction_dropout: float = 0.0
    outlier_limit: float | None = 10.0
    compile_model: bool = False
    quantization: str | None = None

    rtc_config: RTCConfig | None = None
    action_feature_names: list[str] | None = None

    @checked
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expert.conditioning_layers is None:
            self.expert.conditioning_layers = self.conditioning_layers
        if self.n_action_steps is None:
            self.n_action_steps = self.chunk_size
        if self.distillation.teacher is not None:
            self.expert.num_inference_steps = 1
        self._validate()

    def _move_old_fields(self) -> None:
        super()._move_old_fields()
        old = self.expert.take_old()
        self.built.action_dim = old.pop("action_dim", 0)
        if self.built.backbone:  # of a checkpoint, not of a user's file
            self.built.expert = asdict(replace(self.sizes.expert, **old))
        self.expert.architecture = old | self.expert.architecture

    def _validate(self) -> None:
        if not 1 <= self.chunk_size <= _LONGEST_CHUNK:
            raise ValueError(
                f"chunk_size={self.chunk_size}: expected at least 1 and at most {_LONGEST_CHUNK} (32 in the release)."
            )
        if self.n_action_steps is None or not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps={self.n_action_steps}: expected 1 to chunk_size={self.chunk_size}, since no more "
                "actions than a chunk holds can be executed from it."
            )
        if self.outlier_limit is not None and not self.outlier_limit > 1:
            raise ValueError(
                f"outlier_limit={self.outlier_limit}: expected more than 1, the size of ordinary values once they are "
                "normalised, or null for no limit."
            )
        for name in ("camera_dropout", "instruction_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)}: expected a probability from 0 to below 1 (0.1 in the release)."
                )
        if self.camera_dropout and self.cameras.layout != "separate":
            raise ValueError(
                f"camera_dropout={self.camera_dropout} with cameras.layout={self.cameras.layout!r}, where all cameras are one "
                "image: expected 'separate', or camera_dropout=0."
            )
        if self.asks_about_frames and self.cameras.layout != "separate":
            raise ValueError(
                f"co_training.loss_weight={self.co_training.loss_weight} with cameras.layout={self.cameras.layout!r}: expected "
                "'separate', since each image has its own questions; or --policy.co_training.repo_id."
            )
        if self.learns_tokens and "language_model" not in self.trainable_parts:
            raise ValueError(
                f"action_tokens.loss_weight={self.action_tokens.loss_weight} with backbone.freeze_language_model=true: the embeddings of "
                "action tokens would stay as they are, which is random. Expected --policy.backbone.freeze_language_model=false, or "
                "action_tokens.loss_weight=0."
            )
        if "language" in self.loss_weights and not self.trainable_parts & set(BACKBONE_PARTS):
            raise ValueError(
                f"co_training.loss_weight={self.co_training.loss_weight} with the whole backbone frozen: answers would teach nothing. "
                "Expected a part of it that learns, or co_training.loss_weight=0."
            )
        if self.distillation.teacher is not None and self.expert.freeze:
            raise ValueError(
                f"expert.freeze=true with distillation.teacher={self.distillation.teacher!r}, which teaches the expert to act in one "
                "step: expected expert.freeze=false."
            )
        if "action" not in self.loss_weights and self.action_tokens.act == "flow":
            raise ValueError(
                "action_tokens.act='flow' with expert.freeze=true and action_tokens.insulate=true: tokens alone are learned, and the expert, "
                "which would act, does not follow the backbone. Expected --policy.action_tokens.act=tokens, or --policy.expert.freeze=false."
            )
        require(self.quantization, QUANTIZATIONS, "quantization")
        self.check_quantization()
        if self.expert.conditioning == "key_values" and self.backbone.conditioning != "layer_inputs":
            raise ValueError(
                f"backbone.conditioning={self.backbone.conditioning!r} with expert.conditioning='key_values': keys and values are made of "
                "what a layer reads. Expected 'layer_inputs', or --policy.expert.conditioning=states."
            )
        blocks = self.expert_architecture.depth
        if len(self.conditioning_layers) != blocks:
            raise ValueError(
                f"expert.conditioning_layers has {len(self.conditioning_layers)} entries for an expert of {blocks} blocks: "
                "expected one index per block."
            )
        if self.depth_loss_weight and self.cameras.layout != "separate":
            raise ValueError(
                f"cameras.layout={self.cameras.layout!r} with depth.loss_weight={self.depth_loss_weight}: expected "
                "'separate', since each image has its own depth map; or set --policy.depth.loss_weight=0."
            )

    def check_steps(self) -> None:
        """Raise a ValueError if weights that were distilled to act in one step are to take more: only their first velocity was trained."""
        if self.built.one_step and self.expert.num_inference_steps != 1:
            raise ValueError(
                f"expert.num_inference_steps={self.expert.num_inference_steps}, but this policy was distilled to act in one step: expected "
                "--policy.expert.num_inference_steps=1, or its teacher, which acts in more."
            )

    def settle_steps(self) -> None:
        """Note whether training makes a policy that acts in one step."""
        if self.built.one_step and self.distillation.teacher is None:
            logger.warning(
                "This policy was distilled to act in one step, and learns demonstrated actions now, as a policy of several steps does, with "
                "expert.num_inference_steps=%d. Name its teacher again (--policy.distillation.teacher), or give "
                "--policy.expert.num_inference_steps=5.",
                self.expert.num_inference_steps,
            )
        self.built.one_step = self.distillation.teacher is not None

    def check_expert(self) -> None:
        """Raise a ValueError if actions are to come of an expert that nothing has trained."""
        if self.built.random_expert and self.action_tokens.act == "flow":
            raise ValueError(
                "action_tokens.act='flow', but this policy was trained by tokens alone: its expert has the random weights that it was frozen "
                "with. Expected --policy.action_tokens.act=tokens."
            )

    def settle_expert(self, *, is_new: bool) -> None:
        """Note whether the expert keeps random weights.

        Args:
            is_new: The expert was just built with random weights.

        Raises:
            ValueError: It keeps them, and the policy learns by the expert's flow or acts by it.
        """
        # An adapter that goes on trains what it trained before, which was not such an expert.
        self.built.random_expert = (is_new and self.expert.freeze) or (
            self.built.random_expert and (self.expert.freeze or self.use_peft)
        )
        if not self.built.random_expert or self.learns_tokens_alone:
            return
        alone = (
            "tokens alone: --policy.expert.freeze=true --policy.action_tokens.insulate=true --policy.action_tokens.loss_weight=1 "
            "--policy.action_tokens.act=tokens"
        )
        if self.use_peft:
            raise ValueError(
                f"--policy.path={self.pretrained_path} is an adapter of a policy that was trained by tokens alone: its expert has random weights, "
                "which the adapter does not train. Expected a whole policy, whose expert can be trained (lerobot-gem-convert "
                f"--format=policy); or {alone}."
            )
        raise ValueError(
            "expert.freeze=true, and the expert has random weights: a policy that learns or acts by it comes to nothing. Expected "
            f"--policy.expert.freeze=false; or, for a new policy, --policy.expert.pretrained=<gem_vla checkpoint or RDT>; or {alone}."
        )

    def settle_acting(self) -> None:
        """Note that training makes a whole policy, of weights that may have been made to act alone."""
        if self.built.acts_alone:
            logger.warning(
                "--policy.path=%s was converted to act: its weights are those of %s, and what only trains is not there, such as the depth "
                "generator. Training goes on with what there is. Expected the checkpoint that it was converted from.",
                self.pretrained_path,
                self.dtype,
            )
        self.built.acts_alone = False

    def check_guided(self) -> None:
        """Raise a ValueError if actions in tokens are to be guided by real-time chunking."""
        if self.action_tokens.act != "flow":
            raise ValueError(
                f"rtc_config.enabled=true with action_tokens.act={self.action_tokens.act!r}: real-time chunking guides the expert's flow. "
                "Expected --policy.action_tokens.act=flow, or no real-time chunking: no --policy.rtc_config (lerobot-rollout: "
                "--inference.type=sync)."
            )

    def check_quantization(self) -> None:
        """Raise a ValueError if what acts in 8 bits is to be compiled; lerobot-rollout sets compile_model when all was checked."""
        if self.quantization and self.compile_model:
            raise ValueError(
                f"quantization={self.quantization!r} with compile_model=true: expected one of them, since 8-bit layers are not "
                "compiled. Leave out --policy.quantization, or set --policy.compile_model=false (lerobot-rollout: no --use_torch_compile)."
            )

    @property
    def expert_architecture(self) -> ExpertArchitecture:
        """Sizes of the expert: the preset's, and what `expert.architecture` says instead."""
        try:
            return replace(self.sizes.expert, **self.expert.architecture)
        except ValueError as error:
            raise ValueError(
                f"expert.architecture={self.expert.architecture} in place of some sizes of preset={self.preset!r}: {error} Expected sizes that "
                "fit together, the others of the preset or named too."
            ) from error

    @property
    def reading(self) -> Reading:
        """What the expert reads of a layer (models/conditioning.py)."""
        return "key_values" if self.expert.conditioning == "key_values" else self.backbone.conditioning

    @property
    def conditioning_layers(self) -> list[int]:
        """Backbone state that each block of the expert reads, or layer whose keys and values."""
        layers = self.expert.conditioning_layers
        return list(range(self.expert_architecture.depth)) if layers is None else layers

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
        if self.built.action_dim not in (0, action_dim):
            raise ValueError(
                f"Actions have {action_dim} numbers here ({ACTION!r} of the dataset or environment), but the policy was trained with {self.built.action_dim}. "
                "Use data or an environment of the same robot, or train a new policy "
                "(--policy.backbone.pretrained=<this checkpoint> instead of --policy.path)."
            )
        expert = asdict(self.expert_architecture)
        if self.built.expert not in ({}, expert):
            raise ValueError(
                f"expert.architecture={self.expert.architecture} is not what the policy was trained with: its expert has the "
                f"sizes {self.built.expert}. Leave the option out, or train a new policy."
            )
        if self.built.expert and self.built.conditioning != self.expert.conditioning:
            raise ValueError(
                f"expert.conditioning={self.expert.conditioning!r}, but the policy was trained with {self.built.conditioning!r}, and its expert "
                "has no weights for anything else. Leave the option out, or train a new policy "
                "(--policy.backbone.pretrained=<this checkpoint> instead of --policy.path)."
            )
        self.built.action_dim, self.built.expert = action_dim, expert
        self.built.conditioning = self.expert.conditioning
        self.settle_cameras()
        self.input_features = {
            name: feature
            for name, feature in (self.input_features or {}).items()
            if name in self.camera_names or (name == OBS_STATE and self.expert.use_state)
        }

    @property
    def current_stage(self) -> str:
        return "action"

    @property
    def default_depth_loss_weight(self) -> float:
        """None, so that no depth is needed; 0.1 in the paper."""
        return 0.0

    @property
    def weight_fields(self) -> dict[str, float]:
        return super().weight_fields | {
            TOKENS_LOSS_WEIGHT: self.action_tokens.loss_weight,
            LANGUAGE_LOSS_WEIGHT: self.co_training.loss_weight,
        }

    @property
    def loss_weights(self) -> dict[str, float]:
        weights = super().loss_weights
        if self.expert.freeze and self.action_tokens.insulate:
            del weights["action"]  # nothing would learn from it
        return weights

    @property
    def learns_tokens_alone(self) -> bool:
        """Whether actions are learned and acted by tokens alone."""
        return "action" not in self.loss_weights and self.action_tokens.act == "tokens"

    @property
    def asks_about_frames(self) -> bool:
        return super().asks_about_frames and self.co_training.repo_id is None

    @property
    def learns_tokens(self) -> bool:
        """Whether the backbone learns to write actions in tokens."""
        return "tokens" in self.loss_weights

    @property
    def trainable_parts(self) -> set[str]:
        return super().trainable_parts - (FREEZE_FLAGS[FREEZE_EXPERT] if self.expert.freeze else set())

    @property
    def state_feature(self) -> PolicyFeature | None:
        """The state that the expert is conditioned on, if any."""
        return self.robot_state_feature if self.expert.use_state else None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    def set_dataset_feature_metadata(self, features: dict[str, dict[str, Any]]) -> None:
        super().set_dataset_feature_metadata(features)
        action = features.get(ACTION) or {}
        if action.get("names"):
            self.action_feature_names = flat_names(ACTION, action["names"], action["shape"][0])

    @property
    def limits(self) -> Limits:
        """What bounds normalised states and actions; nothing bounds what is not normalised."""
        if not self.built.is_bounded or self.outlier_limit is None:
            return Limits()
        state, action = (
            None if self._normalization(kind) == NormalizationMode.IDENTITY else self.outlier_limit
            for kind in ("STATE", "ACTION")
        )
        return Limits(state, action, tuple(self.built.still_state))

    def settle_limits(self, meta: Any) -> None:
        """Find what stands still in the dataset that normalises states."""
        self.built.is_bounded = True
        stats = (meta.stats or {}).get(OBS_STATE) if self.state_feature is not None else None
        self.built.still_state = still_dimensions(stats or {}, self._normalization("STATE"))

    def _normalization(self, kind: str) -> NormalizationMode:
        return self.normalization_mapping.get(kind, NormalizationMode.IDENTITY)

    def check_dataset(self, meta: Any) -> None:
        super().check_dataset(meta)
        vectors = {ACTION: "ACTION"} | ({} if self.state_feature is None else {OBS_STATE: "STATE"})
        check_statistics(meta, {key: self._normalization(kind) for key, kind in vectors.items()})
        if self.expert.use_state and OBS_STATE not in meta.features and state_like(meta.features):
            logger.warning("%s", no_state(state_like(meta.features)))
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
                f"depth.loss_weight={self.depth_loss_weight}, but there are no weights for {', '.join(sorted(parts))} of "
                "the depth generator: expected --policy.backbone.pretrained=<gem checkpoint> (stages 1 to 3), whose "
                "generator is taken along, or --policy.depth.loss_weight=0."
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config.json without the teacher, which acting does not need; train_config.json keeps it."""
        alone = copy.copy(self)
        alone.distillation = DistillationConfig()
        super(GemVLAConfig, alone)._save_pretrained(save_directory)
