"""GEM-VLA as a LeRobot policy: backbone and action expert."""

import logging
from collections import deque
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen3VLConfig
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints import load_released_expert
from lerobot_gem.configuration_gem_vla import GemVLAConfig
from lerobot_gem.models.action_expert import ActionExpert, Conditioning
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.presets import ExpertArchitecture, get_preset
from lerobot_gem.processing.images import CameraImages

logger = logging.getLogger(__name__)


class GemVLAPolicy(PreTrainedPolicy):
    """GEM-VLA (arXiv 2605.28548, section 3.3): an action expert on the backbone's multimodal tokens.

    Args:
        config: Features must be set, as LeRobot's `make_policy` does.
        dataset_meta: Metadata of the training data set, when there is one.
        weights_follow: A checkpoint's weights will be loaded next: nothing is downloaded or initialised.

    Raises:
        ValueError: The features, sizes or layers asked for don't fit together.
    """

    config_class = GemVLAConfig
    name = "gem_vla"

    def __init__(
        self, config: GemVLAConfig, dataset_meta: Any = None, weights_follow: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(config)
        config.validate_features()
        if dataset_meta is not None:
            _check_data_set(config, dataset_meta)
        with no_init_weights() if weights_follow else nullcontext():
            self.backbone = _build_backbone(config, weights_follow)
            self.expert = _build_expert(config, self.backbone.hidden_size, weights_follow)
        if config.backbone.gradient_checkpointing:
            self.backbone.gradient_checkpointing_enable()
        vision = self.backbone.config.vision_config
        self.images = CameraImages(
            cameras=tuple(config.cameras.names),
            layout=config.cameras.layout,
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.spatial_merge_size,
            min_pixels=config.cameras.min_pixels,
            max_pixels=config.cameras.max_pixels,
        )
        self._freeze()
        self.init_rtc_processor()
        self.reset()

    # Training

    def forward(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        time: Tensor | None = None,
        reduction: str = "mean",
    ) -> tuple[Tensor, dict[str, float]]:
        """Flow-matching loss of the demonstrated chunks; frames past the end of an episode carry none.

        Args:
            batch: A preprocessed batch with `action` (B, chunk_size, A) and, if any, `action_is_pad` (B, chunk_size).
            noise: (B, chunk_size, A); drawn if None, `expert.flow_samples` times per observation.
            time: (B,) in [0, 1], 0 is noise; drawn if None.
            reduction: "mean" gives a scalar, "none" one loss per sample (B,).
        """
        actions, state = batch[ACTION], self._state(batch)
        draws = self.config.expert.flow_samples if noise is None and time is None else 1
        with self._autocast():
            error = self.expert.flow_matching_error(
                actions.repeat_interleave(draws, dim=0),
                self._conditioning(batch).repeat(draws),
                None if state is None else state.repeat_interleave(draws, dim=0),
                noise=noise,
                time=time,
                time_distribution=self.config.expert.time_distribution,
            )
        error = error.unflatten(0, (-1, draws)).mean(dim=1)
        valid = torch.ones(actions.shape[:2], device=actions.device)
        if (is_pad := batch.get(f"{ACTION}_is_pad")) is not None:
            valid = (~is_pad).float()
        per_sample = (error.mean(dim=-1) * valid).sum(dim=-1) / valid.sum(dim=-1)
        loss = per_sample.mean()
        return (per_sample if reduction == "none" else loss), {"action_loss": loss.item()}

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Parameter groups: the expert, and the backbone at its own learning rate; what is frozen is left out."""
        lr_backbone = self.config.optimizer_lr_backbone
        groups = [
            {"params": _learning(self.expert), "lr": self.config.optimizer_lr},
            {
                "params": _learning(self.backbone),
                "lr": self.config.optimizer_lr if lr_backbone is None else lr_backbone,
            },
        ]
        return [group for group in groups if group["params"]]

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """LoRA by default on the attention of backbone and expert."""
        return {
            "target_modules": r".*\.(q_proj|v_proj|qkv|query|value)",
            "modules_to_save": [],
        }

    # Acting

    def reset(self) -> None:
        """Forget the queued actions; called at the start of an episode."""
        self._actions: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The next action (B, A), normalised; predicts a chunk when the last one is used up.

        Raises:
            RuntimeError: Real-time chunking is on, which keeps a queue of its own.
        """
        if self._rtc_enabled():
            raise RuntimeError(
                "select_action does not work with real-time chunking, which queues actions itself: use "
                "predict_action_chunk, or --inference.type=sync."
            )
        if not self._actions:
            chunk = self.predict_action_chunk(batch, noise=noise)
            self._actions.extend(chunk.transpose(0, 1)[: self.config.n_action_steps])
        return self._actions.popleft()

    # no_grad, not inference_mode: real-time chunking differentiates the sampled chunk.
    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Sample a chunk of normalised actions (B, chunk_size, A).

        Args:
            batch: Preprocessed observation.
            noise: (B, chunk_size, A); drawn if None.
            inference_delay: Real-time chunking: actions executed while this chunk is computed.
            prev_chunk_left_over: Real-time chunking: the unexecuted rest of the last chunk.
        """
        self.eval()
        with self._autocast():
            conditioning, state = self._conditioning(batch), self._state(batch)
            if noise is None:
                shape = (batch[OBS_LANGUAGE_TOKENS].shape[0], self.config.chunk_size, self.expert.action_dim)
                noise = torch.randn(shape, device=batch[OBS_LANGUAGE_TOKENS].device)
            if not self._rtc_enabled():
                return self.expert.sample(conditioning, state, noise, self.config.expert.num_inference_steps)
            return self._sample_with_rtc(conditioning, state, noise, inference_delay, prev_chunk_left_over)

    def _sample_with_rtc(
        self,
        conditioning: Conditioning,
        state: Tensor | None,
        noise: Tensor,
        inference_delay: int | None,
        prev_chunk_left_over: Tensor | None,
    ) -> Tensor:
        @torch.no_grad()
        def lerobot_velocity(noisy_actions: Tensor, time: Tensor) -> Tensor:
            # LeRobot's time runs from 1 (noise) to 0 (actions), ours the other way.
            return -self.expert(noisy_actions, 1 - time, conditioning, state)

        chunk_size = self.config.chunk_size
        if prev_chunk_left_over is not None:
            # LeRobot pads the left-over to its own horizon, which may be longer than our chunk.
            prev_chunk_left_over = prev_chunk_left_over[..., :chunk_size, :]
        return euler_integrate(
            lerobot_velocity,
            noise,
            self.config.expert.num_inference_steps,
            rtc_processor=self.rtc_processor,
            rtc_enabled=True,
            inference_delay=inference_delay,
            prev_chunk_left_over=prev_chunk_left_over,
            execution_horizon=min(self.config.rtc_config.execution_horizon, chunk_size),
        )

    def supports_rtc(self) -> bool:
        """GEM-VLA samples by flow integration, which real-time chunking can guide."""
        return True

    def init_rtc_processor(self) -> None:
        """LeRobot's hook, called again after it has set `config.rtc_config`."""
        self.rtc_processor = RTCProcessor(self.config.rtc_config) if self.config.rtc_config else None

    def _rtc_enabled(self) -> bool:
        return self.config.rtc_config is not None and self.config.rtc_config.enabled

    # What both need

    def _conditioning(self, batch: dict[str, Tensor]) -> Conditioning:
        tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        pixel_values, image_grid_thw = self.images.patches(batch)
        states = self.backbone(
            tokens,
            mask,
            pixel_values,
            image_grid_thw,
            layers=self.config.expert.conditioning_layers,
            convention=self.config.backbone.conditioning,
        )
        return self.expert.encode_conditioning(states, mask)

    def _state(self, batch: dict[str, Tensor]) -> Tensor | None:
        if self.config.state_feature is None:
            return None
        state = batch[OBS_STATE]
        snr = self.config.expert.state_noise_snr
        if snr is not None and self.training:
            power = state.square().mean(dim=0, keepdim=True)
            state = state + torch.randn_like(state) * (power / 10 ** (snr / 10)).sqrt()
        return state

    def _autocast(self) -> torch.autocast:
        # LeRobot applies `dtype` in training only; applied here, evaluation and rollout compute what training did.
        device = next(self.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def _freeze(self) -> None:
        frozen = {
            "backbone.vision_tower": (self.backbone.vision_tower, self.config.backbone.freeze_vision_tower),
            "backbone.language_model": (
                self.backbone.language_model,
                self.config.backbone.freeze_language_model,
            ),
            "expert": (self.expert, self.config.expert.freeze),
        }
        for name, (part, freeze) in frozen.items():
            part.requires_grad_(not freeze)
            size = sum(parameter.numel() for parameter in part.parameters())
            logger.info(f"{name}: {size / 1e6:.2f} M parameters, {'frozen' if freeze else 'learns'}")
        if not _learning(self):
            raise ValueError(
                "Nothing learns: backbone.freeze_vision_tower, backbone.freeze_language_model and expert.freeze are "
                "all true. Unfreeze one."
            )

    # Checkpoints

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a checkpoint that LeRobot saved; needs no file but those in it.

        Raises:
            ValueError: Weights are missing, unexpected, of another shape, or cut short; the error names them.
        """
        return super().from_pretrained(pretrained_name_or_path, weights_follow=True, **kwargs)

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        try:
            weights = load_file(model_file)
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(
                f"The checkpoint {model_file} can't be read ({error}): it is missing or was cut short. Copy or download "
                "it again, or take the checkpoint before it."
            ) from error
        own = model.state_dict()
        problems = [f"missing: {name}" for name in own.keys() - weights.keys()]
        problems += [f"unexpected: {name}" for name in weights.keys() - own.keys()]
        problems += [
            f"shape of {name}: {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the policy"
            for name in own.keys() & weights.keys()
            if weights[name].shape != own[name].shape
        ]
        if problems:
            raise ValueError(
                f"The checkpoint {model_file} does not fit its configuration:\n  "
                + "\n  ".join(sorted(problems))
                + "\nUse the config.json that was saved with it, and override no size on the command line."
            )
        model.load_state_dict(weights)
        return model


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _build_backbone(config: GemVLAConfig, weights_follow: bool) -> GemBackbone:
    # The expert's last state is the input of the first layer that is not needed.
    num_layers = max(config.expert.conditioning_layers)
    if config.backbone.pretrained is not None and not weights_follow:
        backbone = GemBackbone.from_pretrained(config.backbone.pretrained, num_layers=num_layers)
    else:
        architecture = config.backbone.architecture or get_preset(config.preset).backbone
        backbone = GemBackbone(Qwen3VLConfig(**architecture), num_layers=num_layers)
    config.backbone.architecture = backbone.config.to_dict()
    return backbone


def _build_expert(config: GemVLAConfig, conditioning_dim: int, weights_follow: bool) -> ActionExpert:
    sizes = {field.name: getattr(config.expert, field.name) for field in fields(ExpertArchitecture)}
    expert = ActionExpert(
        ExpertArchitecture(**sizes),
        conditioning_dim=conditioning_dim,
        action_dim=config.expert.action_dim,
        state_dim=config.state_feature.shape[0] if config.state_feature else None,
        chunk_size=config.chunk_size,
    )
    if config.expert.pretrained is not None and not weights_follow:
        expert.load_state_dict(load_released_expert(config.expert.pretrained))
    return expert


def _check_data_set(config: GemVLAConfig, dataset_meta: Any) -> None:
    """Compare the data set with what the policy was built for, before hours of training are lost."""
    if dataset_meta.total_frames == 0:
        raise ValueError(
            f"The data set {dataset_meta.repo_id!r} is empty: expected at least one episode. Record some, or check "
            "--dataset.root and --dataset.episodes."
        )
    if config.state_feature is None:
        return
    found = tuple(dataset_meta.features.get(OBS_STATE, {}).get("shape", ()))
    if found != tuple(config.state_feature.shape):
        raise ValueError(
            f"{OBS_STATE} has shape {found or None} in the data set {dataset_meta.repo_id!r}, but the policy was "
            f"trained with {tuple(config.state_feature.shape)}. Use data of the same robot, or train a new policy."
        )
