"""GEM's pre-training as a LeRobot policy: backbone and depth generator."""

import logging
from pathlib import Path
from typing import Any, NoReturn

import torch
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from lerobot_gem.policies.base_policy import BaseGemPolicy
from lerobot_gem.policies.building import build_backbone, build_generator, random_parts
from lerobot_gem.policies.depth_loss import depth_logs
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.language_loss import language_logs, language_sums
from lerobot_gem.policies.loading import why_no_actions
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.processing.depth_target import target_size
from lerobot_gem.processing.steps import (
    IGNORED,
    OBS_GRID_THW,
    OBS_LABELS,
    OBS_PIXEL_VALUES,
    OBS_ROW_SAMPLES,
    OBS_SHOWN,
    LanguageRowsStep,
)
from lerobot_gem.storage.language_rows import bound_language
from lerobot_gem.training.draws import drawing_apart
from lerobot_gem.training.trainable import log_parts, trainable_parameters

logger = logging.getLogger(__name__)


class GemPolicy(BaseGemPolicy):
    """GEM (arXiv 2605.28548, section 3.2): a backbone that learns geometry by generating depth, and to answer questions.

    Args:
        config: Features must be set, as LeRobot's `make_policy` does.
        dataset_meta: Metadata of the training dataset, when there is one.
        weights_follow: A checkpoint's weights will be loaded next: nothing is downloaded or initialised.
        dataset_stats: Not read; LeRobot passes what other policies need.

    Raises:
        ValueError: The features or parts don't fit together, a stage was skipped, or a part that must be trained is not.
    """

    config_class = GemConfig
    name = "gem"
    _use = "look and to answer"

    config: GemConfig

    @drawing_apart()
    def __init__(
        self,
        config: GemConfig,
        dataset_meta: Any = None,
        weights_follow: bool = False,
        dataset_stats: Any = None,
    ) -> None:
        super().__init__(config, dataset_meta, weights_follow)
        config.validate_features()
        if not weights_follow:
            config.record_sources()
        if dataset_meta is not None:
            config.check_dataset(dataset_meta)
            config.check_stages()
            LanguageRowsStep.bind(bound_language(dataset_meta))
        self.backbone = build_backbone(config, weights_follow=weights_follow, language_head=True)
        self.generator, untrained = None, set[str]()
        if "depth" in config.loss_weights:
            self.generator, untrained = build_generator(
                config, self.backbone.hidden_size, weights_follow=weights_follow
            )
            config.check_untrained(untrained)
        if not weights_follow:
            self.random_parts = random_parts(config, untrained)
        if dataset_meta is not None:
            config.record_training(dataset_meta)
        self.freeze()
        if dataset_meta is not None:
            log_parts(self)
        self.declare_blocks()

    # Training

    def forward(self, batch: dict[str, Tensor], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """The losses of the stage (stages.py), weighted and added.

        Args:
            batch: A preprocessed batch, with depth (B, 1, H, W) under each paired depth key.
            reduction: "mean" gives a scalar, "none" shares of it per sample (B,), whose mean it is: each answer token
                and each image counts alike.

        Returns:
            Loss, and logs: each loss before weighting, `token_accuracy`, the share of frames with language and with
            depth (`frames_with_...`), and how many images had a depth map without any valid pixel.
        """
        batch_size = len(batch[self.config.camera_names[0]])
        with_answers = batch[OBS_ROW_SAMPLES][(batch[OBS_LABELS] != IGNORED).any(dim=1)]
        logs = {"frames_with_language": len(with_answers.unique()) / batch_size}
        with self.own_draws(batch):
            sums = self.measure(batch, batch_size)
        if "language" in self.config.loss_weights:
            logs |= language_logs(sums)
        if self.generator is not None:
            logs |= depth_logs(sums)
        per_sample = self.weighted(sums, logs, batch)
        return (per_sample if reduction == "none" else per_sample.mean()), logs

    def _sums(self, batch: dict[str, Tensor]) -> dict[str, SampleSums]:
        batch_size = len(batch[self.config.camera_names[0]])
        sums: dict[str, SampleSums] = {}
        with self.autocast():
            with_text = "language" in self.config.loss_weights
            states, tokens = self._final_states(batch, with_text=with_text)
            if with_text:
                sums |= language_sums(self.backbone, states, batch, batch_size)
            if self.generator is not None:
                sums |= self._depth_sums(batch, states, tokens, batch_size)
        return sums

    def _final_states(self, batch: dict[str, Tensor], *, with_text: bool) -> tuple[Tensor, Tensor]:
        """Final states (R, L, D) of the prompts, and their tokens (R, L)."""
        tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        if not with_text:
            # Attention is causal and images lead the prompt, which is padded on the right: no text can reach them.
            ends = (tokens == self.backbone.config.vision_end_token_id).nonzero()[:, 1]
            tokens, mask = (tensor[:, : int(ends.max()) + 1] for tensor in (tokens, mask))
        patches = batch[OBS_PIXEL_VALUES], batch[OBS_GRID_THW]
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(trainable_parameters(self.backbone))):
            return self.backbone.final_states(tokens, mask, *patches), tokens

    # What it has learned

    @torch.no_grad()
    def generate_depth(
        self, batch: dict[str, Tensor], generator: torch.Generator | list[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        """Generate the depth of every camera's image.

        Args:
            batch: A preprocessed batch; needs no depth.
            generator: Draws the noise; a list has one for each sample.

        Returns:
            Camera -> pictures (B, 3, h, w) in [0, 1], coloured by `depth.colormap`; `relative_depth` of
            processing/depth_target.py inverts that. With `depth.target` "rgb": the camera's picture, as it was learned.

        Raises:
            ValueError: The policy was trained without a depth loss, and has no generator.
        """
        if self.generator is None:
            raise ValueError(
                f"depth.loss_weight={self.config.depth_loss_weight}: this policy learns no depth and has no depth generator. "
                "Expected a checkpoint that was trained with a depth loss."
            )
        self.eval()
        depth, supervision = self.config.depth, self.config.depth_supervision
        with self.autocast():
            states, tokens = self._final_states(batch, with_text=False)
            spans, mask = self.backbone.vision_spans(states, tokens)
            pictures = {}
            for position, camera in enumerate(self.config.camera_names):
                shows = batch[OBS_SHOWN][:, 1] == position
                pictures[camera] = self.generator.sample(
                    spans[shows],
                    mask[shows],
                    target_size(
                        *batch[camera].shape[-2:],
                        colormap=supervision.colormap,
                        max_side=supervision.max_side,
                    ),
                    guidance_scale=depth.guidance_scale,
                    num_inference_steps=depth.num_inference_steps,
                    generator=generator,
                )
        return pictures

    # Acting

    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> NoReturn:
        """GEM does not act.

        Raises:
            RuntimeError: Always; it says how to go on to a policy that acts.
        """
        raise RuntimeError(why_no_actions(self.config.preset))

    predict_action_chunk = select_action

    def reset(self) -> None:
        """Nothing is kept between frames."""

    # Checkpoints

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        if self._coarse:
            logger.warning(
                "This policy was loaded to %s: its weights are saved in %s. To save them as they were trained, load it with "
                "dtype='float32', or copy its checkpoint.",
                self._use,
                self._coarse,
            )
        super()._save_pretrained(save_directory, **kwargs)
