"""GEM-VLA as a LeRobot policy: backbone and action expert, and the depth generator while it teaches."""

import logging
from collections.abc import Sequence
from typing import Any

from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from lerobot_gem.checkpoints.loading import kept_layers
from lerobot_gem.policies.action_turn_building import build_action_turn
from lerobot_gem.policies.building import build_backbone, build_expert, build_generator, random_parts
from lerobot_gem.policies.depth_loss import depth_logs
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.gem_vla.learning import LearningPolicy
from lerobot_gem.policies.language_loss import language_logs
from lerobot_gem.policies.question_batches import build_question_batches
from lerobot_gem.policies.teacher import Teacher
from lerobot_gem.processing.statistics import stands_still
from lerobot_gem.processing.steps import OBS_QUESTIONS
from lerobot_gem.training.draws import drawing_apart
from lerobot_gem.training.stages import skipped_before
from lerobot_gem.training.trainable import log_parts

logger = logging.getLogger(__name__)


class GemVLAPolicy(LearningPolicy):
    """GEM-VLA (arXiv 2605.28548, section 3.3): an action expert on the backbone's multimodal tokens.

    Args:
        config: Features must be set, as LeRobot's `make_policy` does.
        dataset_meta: Metadata of the training dataset, when there is one.
        weights_follow: A checkpoint's weights will be loaded next: nothing is downloaded or initialised.
        dataset_stats: Not read; LeRobot passes what other policies need.

    Raises:
        ValueError: The features, sizes or layers asked for don't fit together.
    """

    config_class = GemVLAConfig
    name = "gem_vla"

    @drawing_apart()
    def __init__(
        self,
        config: GemVLAConfig,
        dataset_meta: Any = None,
        weights_follow: bool = False,
        dataset_stats: Any = None,
    ) -> None:
        super().__init__(config, dataset_meta, weights_follow)
        config.validate_features()
        self.check_acting(dataset_meta)
        if not weights_follow:
            config.record_sources()
        if dataset_meta is not None:
            config.check_dataset(dataset_meta)
            if config.built.is_bounded or not weights_follow:
                config.settle_limits(dataset_meta)
                _warn_of_still_state(config)
        learned = set(config.loss_weights) if dataset_meta is not None else set()
        with_depth = "depth" in learned
        writes = not learned.isdisjoint({"tokens", "language"}) or config.action_tokens.act == "tokens"
        # The expert's last state is the input of the first layer that acting by it does not need, or of which it needs but keys and values;
        # depth and text are read off the last.
        num_layers = kept_layers(config.conditioning_layers, config.expert.conditioning)
        self.backbone = build_backbone(
            config,
            weights_follow=weights_follow,
            num_layers=None if with_depth or writes else num_layers,
            language_head=writes,
            key_values=config.reading == "key_values",
        )
        rows = len(self.backbone.model.get_input_embeddings().weight)
        self.action_turn = build_action_turn(
            config, dataset_meta, weights_follow=weights_follow, embedding_rows=rows
        )
        self.questions = build_question_batches(config, dataset_meta, weights_follow=weights_follow)
        self.expert = build_expert(config, self.backbone, weights_follow=weights_follow)
        self.generator, untrained = None, set[str]()
        if with_depth:
            self.generator, untrained = build_generator(
                config, self.backbone.hidden_size, weights_follow=weights_follow
            )
            config.check_untrained(untrained)
            if not weights_follow:
                _warn_of_skipped_stages(config.sources.stages_done)
        if not weights_follow:
            self.random_parts = random_parts(config, untrained)
        elif config.built.random_expert and not config.expert.freeze:
            self.random_parts = frozenset({"expert"})
        self._teacher: Teacher | None = None
        if dataset_meta is not None:
            if config.distillation.teacher is not None:
                self._teacher = Teacher(config, dataset_meta)
            config.settle_steps()
            config.settle_acting()
            config.record_training(dataset_meta)
        self.freeze()
        if dataset_meta is not None:
            config.settle_expert(is_new="expert" in self.random_parts and not config.use_peft)
            log_parts(self)
        self.declare_blocks()
        self.begin()

    # Training

    def forward(
        self,
        batch: dict[str, Any],
        reduction: str = "mean",
        noise: Tensor | None = None,
        time: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """The losses of stage 4 (stages.py), weighted and added.

        Args:
            batch: A preprocessed batch with `action` (B, chunk_size, A) and, if any, `action_is_pad` (B, chunk_size): frames
                past the end of an episode carry no loss.
            reduction: "mean" gives a scalar, "none" one loss per sample (B,).
            noise: (B, chunk_size, A), what the expert starts from; drawn if None.
            time: (B,) in [0, 1], times of the flow, 0 is noise; drawn if None. A student of a teacher, which learns no flow, reads none.

        Raises:
            ValueError: Depth, tokens or answers are to be learned, but the policy was loaded to act and lacks what learns them.
        """
        self._check_learns()
        batch_size = len(batch[ACTION])
        if self._teacher is not None:
            self._teacher.load(type(self), batch[ACTION].device)
        with self.own_draws(batch):
            batch = self._with_dropout(batch)
            if self.questions is not None and self.training:
                batch = {**batch, OBS_QUESTIONS: self.questions.draw(batch_size, batch[ACTION].device)}
            if self._teacher is not None:
                # Once for the whole batch: micro-batches are computed twice.
                batch = batch | self._teacher.teach(batch, self._noise_to_teach_from(batch, noise))
            sums = self.measure({**batch, "noise": noise, "time": time}, batch_size)
        logs = {}
        if "action" in sums:
            logs["action_loss"] = sums["action"].mean()
        if "tokens" in sums:
            logs |= {"token_loss": sums["tokens"].mean(), "action_token_accuracy": sums["right"].mean()}
        if "language" in sums:
            logs |= language_logs(sums)
        if self.generator is not None:
            logs |= depth_logs(sums)
        per_sample = self.weighted(sums, logs, batch)
        return (per_sample if reduction == "none" else per_sample.mean()), logs

    def _parts_beside_backbone(self) -> list[nn.Module]:
        return [self.expert, *super()._parts_beside_backbone()]

    def _get_default_peft_targets(self) -> dict[str, Any]:
        targets, rows = super()._get_default_peft_targets(), self._new_rows()
        if rows:
            # A layer that is adapted leaves its rows as they are.
            targets["target_modules"] = [name for name in targets["target_modules"] if name not in rows]
            targets["modules_to_save"] = [*targets["modules_to_save"], *rows]
        return targets

    def _new_rows(self) -> list[str]:
        return (
            [f"backbone.{name}" for name in self.backbone.token_layers] if self.config.learns_tokens else []
        )


def _warn_of_still_state(config: GemVLAConfig) -> None:
    still = config.limits.still
    if still:
        logger.warning("%s", stands_still(OBS_STATE, still, is_read=False))


def _warn_of_skipped_stages(done: Sequence[str]) -> None:
    skipped = skipped_before("action", done)
    if skipped:
        logger.warning(
            f"Backbone and depth generator come without the stage(s) {', '.join(skipped)} of GEM's pre-training, which costs "
            "accuracy (arXiv 2605.28548, ablation). Train them first (lerobot-train --policy.type=gem --policy.stage=...)."
        )
