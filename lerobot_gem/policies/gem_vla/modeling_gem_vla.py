"""GEM-VLA as a LeRobot policy: backbone and action expert, and the depth generator while it teaches."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor

from lerobot_gem.checkpoints.files import load_policy_weights
from lerobot_gem.inference.real_time_chunking import sample_with_rtc
from lerobot_gem.models.action_expert import Conditioning
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_policy import SharedPolicy
from lerobot_gem.policies.building import (
    autocast,
    build_backbone,
    build_expert,
    build_generator,
    stages_behind,
)
from lerobot_gem.policies.depth_loss import depth_losses
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.images import camera_images
from lerobot_gem.training.stages import skipped_before
from lerobot_gem.training.trainable import freeze, parameter_groups

logger = logging.getLogger(__name__)


class GemVLAPolicy(SharedPolicy, PreTrainedPolicy):
    """GEM-VLA (arXiv 2605.28548, section 3.3): an action expert on the backbone's multimodal tokens.

    Args:
        config: Features must be set, as LeRobot's `make_policy` does.
        dataset_meta: Metadata of the training dataset, when there is one.
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
            config.check_dataset(dataset_meta)
        with_depth = dataset_meta is not None and "depth" in config.loss_weights
        # The expert's last state is the input of the first layer that acting does not need; depth is read off the last.
        num_layers = None if with_depth else max(config.expert.conditioning_layers)
        self.backbone = build_backbone(config, weights_follow=weights_follow, num_layers=num_layers)
        self.expert = build_expert(config, self.backbone.hidden_size, weights_follow=weights_follow)
        self.generator: DepthGenerator | None = None
        if with_depth:
            self.generator, untrained = build_generator(
                config, self.backbone.hidden_size, weights_follow=weights_follow
            )
            config.check_untrained(untrained)
            if not weights_follow:
                _warn_of_skipped_stages(stages_behind(config))
        self.images = camera_images(config)
        freeze(self, "action", config)
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
        with autocast(self):
            conditioning, final_states = self._observe(batch)
            losses = {"action": self._action_losses(batch, conditioning, noise, time)}
            logs = {"action_loss": losses["action"].mean().item()}
            if self.generator is not None:
                losses["depth"], depth_logs = self._depth_losses(batch, final_states)
                logs |= depth_logs
        per_sample = sum(weight * losses[loss] for loss, weight in self.config.loss_weights.items())
        return (per_sample if reduction == "none" else per_sample.mean()), logs

    def _action_losses(
        self, batch: dict[str, Tensor], conditioning: Conditioning, noise: Tensor | None, time: Tensor | None
    ) -> Tensor:
        """Flow-matching losses (B,)."""
        actions, state = batch[ACTION], self._state(batch)
        draws = self.config.expert.flow_samples if noise is None and time is None else 1
        error = self.expert.flow_matching_error(
            actions.repeat_interleave(draws, dim=0),
            conditioning.repeat(draws),
            None if state is None else state.repeat_interleave(draws, dim=0),
            noise=noise,
            time=time,
            time_distribution=self.config.expert.time_distribution,
        )
        error = error.unflatten(0, (-1, draws)).mean(dim=1)
        valid = torch.ones(actions.shape[:2], device=actions.device)
        if (is_pad := batch.get(f"{ACTION}_is_pad")) is not None:
            valid = (~is_pad).float()
        return (error.mean(dim=-1) * valid).sum(dim=-1) / valid.sum(dim=-1)

    def _depth_losses(self, batch: dict[str, Tensor], states: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Shares of the depth loss (B,), and its logs."""
        cameras = self.config.cameras.names
        shown = [(sample, camera) for sample in range(len(states)) for camera in range(len(cameras))]
        spans, mask = self.backbone.vision_spans(states, batch[OBS_LANGUAGE_TOKENS])
        losses = depth_losses(self.generator, spans, mask, shown, batch, cameras, self.config.depth)
        return losses.per_sample(len(states)), losses.logs(len(states))

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Parameter groups: expert and generator, and the backbone at its own learning rate; without what is frozen."""
        trained = [self.expert] if self.generator is None else [self.expert, self.generator]
        return parameter_groups(self.config, *trained, backbone=self.backbone)

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """LoRA by default on the attention of backbone and expert."""
        return {"target_modules": r".*\.(q_proj|v_proj|qkv|query|value)", "modules_to_save": []}

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
            **kwargs: Not read; LeRobot passes what other policies need.
        """
        self.eval()
        with autocast(self):
            conditioning, _ = self._observe(batch, final=False)
            state = self._state(batch)
            if noise is None:
                shape = (batch[OBS_LANGUAGE_TOKENS].shape[0], self.config.chunk_size, self.expert.action_dim)
                noise = torch.randn(shape, device=batch[OBS_LANGUAGE_TOKENS].device)
            steps = self.config.expert.num_inference_steps
            if not self._rtc_enabled():
                return self.expert.sample(conditioning, state, noise, steps)
            return sample_with_rtc(
                lambda actions, time: self.expert(actions, time, conditioning, state),
                noise,
                steps,
                self.rtc_processor,
                inference_delay,
                prev_chunk_left_over,
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

    def _observe(self, batch: dict[str, Tensor], *, final: bool = True) -> tuple[Conditioning, Tensor | None]:
        """What the expert reads, and the final states (B, L, D) if they are asked for and there is a generator."""
        tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        inputs = tokens, mask, *self.images.patches(batch)
        asked = {
            "layers": self.config.expert.conditioning_layers,
            "convention": self.config.backbone.conditioning,
        }
        if final and self.generator is not None:
            states, final_states = self.backbone.forward_with_final(*inputs, **asked)
        else:
            states, final_states = self.backbone(*inputs, **asked), None
        return self.expert.encode_conditioning(states, mask), final_states

    def _state(self, batch: dict[str, Tensor]) -> Tensor | None:
        if self.config.state_feature is None:
            return None
        state = batch[OBS_STATE]
        snr = self.config.expert.state_noise_snr
        if snr is not None and self.training:
            power = state.square().mean(dim=0, keepdim=True)
            state = state + torch.randn_like(state) * (power / 10 ** (snr / 10)).sqrt()
        return state

    # Checkpoints

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        def is_for_training(name: str) -> bool:
            part, _, rest = name.partition(".")
            return part == "generator" or (part == "backbone" and model.backbone.has_no_place_for(rest))

        # A policy trained with a depth loss acts without the generator and the layers that only it reads.
        leave_out = is_for_training if model.generator is None else None
        load_policy_weights(model, model_file, leave_out=leave_out)
        return model


def _warn_of_skipped_stages(done: Sequence[str]) -> None:
    skipped = skipped_before("action", done)
    if skipped:
        logger.warning(
            f"Backbone and depth generator come without the stage(s) {', '.join(skipped)} of GEM's pre-training, which costs "
            "accuracy (arXiv 2605.28548, ablation). Train them first (lerobot-train --policy.type=gem --policy.stage=...)."
        )
