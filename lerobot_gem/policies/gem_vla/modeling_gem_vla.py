"""GEM-VLA as a LeRobot policy: backbone and action expert, and the depth generator while it teaches."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from lerobot_gem.checkpoints.loading import kept_layers
from lerobot_gem.models.conditioning import Conditioning
from lerobot_gem.models.distillation import one_step_loss, sample_each
from lerobot_gem.models.next_token import next_token_losses
from lerobot_gem.policies.action_turn_building import build_action_turn
from lerobot_gem.policies.building import build_backbone, build_expert, build_generator, random_parts
from lerobot_gem.policies.depth_loss import depth_logs
from lerobot_gem.policies.gem_vla.acting import ActingPolicy
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.language_loss import language_logs, language_sums
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.policies.question_batches import build_question_batches
from lerobot_gem.policies.teacher import TAUGHT, TAUGHT_FROM, Teacher
from lerobot_gem.processing.action_turn import TurnRows
from lerobot_gem.processing.prompt_dropout import draw_kept, leave_out
from lerobot_gem.processing.statistics import stands_still
from lerobot_gem.processing.steps import IGNORED, OBS_GRID_THW, OBS_PIXEL_VALUES, OBS_QUESTIONS
from lerobot_gem.training.draws import drawing_apart
from lerobot_gem.training.stages import STAGES, skipped_before
from lerobot_gem.training.trainable import log_parts

logger = logging.getLogger(__name__)


class GemVLAPolicy(ActingPolicy):
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

    @drawing_apart()
    def __init__(
        self, config: GemVLAConfig, dataset_meta: Any = None, weights_follow: bool = False, **kwargs: Any
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
        with self.own_draws(batch):
            batch = self._with_dropout(batch)
            if self.questions is not None and self.training:
                batch = {**batch, OBS_QUESTIONS: self.questions.draw(batch_size, batch[ACTION].device)}
            if self._teacher is not None:
                # Once for the whole batch: micro-batches are computed twice.
                batch = batch | self._teacher.teach(
                    type(self), batch, self._noise_to_teach_from(batch, noise)
                )
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

    def _check_learns(self) -> None:
        for loss, can in (
            ("depth", self.generator is not None),
            ("tokens", self.action_turn is not None and self.backbone.is_complete),
            ("language", self.backbone.is_complete),
        ):
            if loss in self.config.loss_weights and not can:
                field = STAGES["action"].losses[loss]
                raise ValueError(
                    f"{field}={self.config.loss_weights[loss]}, but this policy was loaded to act and lacks what learns it: expected "
                    f"LeRobot's make_policy with the metadata of the dataset, or {field}=0."
                )

    def _sums(self, batch: dict[str, Any]) -> dict[str, SampleSums]:
        actions, is_pad = self.config.limits.of_action(batch[ACTION]), batch.get(f"{ACTION}_is_pad")
        turns: TurnRows | None = None
        if self.action_turn is not None and self.config.learns_tokens:
            prompts = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
            turns = self.action_turn.append(*prompts, actions)
        with self.autocast():
            states, final_states = self._observe(batch, turns)
            sums: dict[str, SampleSums] = {}
            if "action" in self.config.loss_weights:
                losses = self._action_losses(batch, actions, is_pad, states)
                sums["action"] = SampleSums(losses, torch.ones_like(losses, dtype=torch.long))
            if self.generator is not None and final_states is not None:
                tokens = batch[OBS_LANGUAGE_TOKENS]
                sums |= self._depth_sums(batch, final_states[:, : tokens.shape[1]], tokens, len(actions))
            if turns is not None and final_states is not None:
                sums |= self._token_sums(final_states, turns)
            if "language" in self.config.loss_weights:
                sums |= self._question_sums(batch.get(OBS_QUESTIONS), actions)
        return sums

    def _token_sums(self, states: Tensor, turns: TurnRows) -> dict[str, SampleSums]:
        """Those of the action tokens: each chunk counts alike, however many tokens it has."""
        written = next_token_losses(self.backbone, states, turns.labels, ignored=IGNORED)
        summed = SampleSums.of(written.losses, written.rows, len(states))
        return {
            "tokens": SampleSums(summed.sums / summed.counts, torch.ones_like(summed.counts)),
            "right": SampleSums.of(written.right, written.rows, len(states)),
        }

    def _question_sums(self, questions: dict[str, Tensor] | None, actions: Tensor) -> dict[str, SampleSums]:
        """Those of the answers that are learned beside actions (B, T, A); zeros (B,) where nothing is asked."""
        if questions is None or not len(questions[OBS_LANGUAGE_TOKENS]):
            zeros = actions.new_zeros(len(actions))
            none = SampleSums(zeros, zeros.long())
            return {"language": none, "accuracy": none}
        states = self.backbone.final_states(
            questions[OBS_LANGUAGE_TOKENS],
            questions[OBS_LANGUAGE_ATTENTION_MASK],
            questions[OBS_PIXEL_VALUES],
            questions[OBS_GRID_THW],
        )
        return language_sums(self.backbone, states, questions, len(actions))

    def _action_losses(
        self, batch: dict[str, Any], actions: Tensor, is_pad: Tensor | None, states: Tensor
    ) -> Tensor:
        """(B,): distances to the teacher's chunks, or the flow's loss of the demonstrated ones."""
        conditioning = self._conditioning(batch, states)
        if TAUGHT in batch:
            return one_step_loss(
                self.expert, batch[TAUGHT], batch[TAUGHT_FROM], conditioning, self._state(batch)
            )
        return self.expert.loss(
            actions,
            is_pad,
            conditioning,
            self._state(batch),
            noise=batch["noise"],
            time=batch["time"],
        )

    def _noise_to_teach_from(self, batch: dict[str, Tensor], noise: Tensor | None) -> Tensor:
        """(B, `flow_samples`, T, A), or what the caller gave (B, T, A)."""
        if noise is not None:
            return noise[:, None]
        actions = batch[ACTION]
        shape = len(actions), self.config.expert.flow_samples, self.config.chunk_size, self.expert.action_dim
        return torch.randn(shape, device=actions.device)

    @torch.no_grad()
    def sample_chunks(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Chunks (B, N, T, A) of normalised actions from N draws of noise (B, N, T, A) for each observation.

        Args:
            batch: Preprocessed.
            noise: Where they start from.
        """
        with self.autocast():
            conditioning = self._conditioning(batch, self._observe(batch, None)[0])
            steps = self.config.expert.num_inference_steps
            return sample_each(self.expert, noise, conditioning, self._state(batch), steps)

    def _with_dropout(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, in training mode without the cameras and instructions that are left out at random."""
        config = self.config
        if not self.training or config.camera_dropout == config.instruction_dropout == 0:
            return batch
        tokens = batch[OBS_LANGUAGE_TOKENS]
        kept = draw_kept(
            len(tokens),
            len(config.camera_names) if config.cameras.layout == "separate" else 1,
            camera_dropout=config.camera_dropout,
            instruction_dropout=config.instruction_dropout,
            device=tokens.device,
        )
        vision = self.backbone.config
        return leave_out(
            batch, kept, vision_start=vision.vision_start_token_id, vision_end=vision.vision_end_token_id
        )

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

    def _observe(self, batch: dict[str, Tensor], turns: TurnRows | None) -> tuple[Tensor, Tensor | None]:
        """What the expert reads of the prompts (B, N, L, D), and the final states (B, L, D) if something learns from them.

        Args:
            batch: Preprocessed.
            turns: The prompts with action tokens behind, whose states are then among the final ones. Attention is causal: nothing
                behind a prompt can reach it.
        """
        tokens, mask, *images = self._observation(batch)[:4]
        inputs = (turns.tokens, turns.mask, *images) if turns is not None else (tokens, mask, *images)
        layers, convention = self.config.conditioning_layers, self.config.reading
        final_states: Tensor | None = None
        if self.generator is not None or turns is not None:
            states, final_states = self.backbone.forward_with_final(
                *inputs, layers=layers, convention=convention
            )
        else:
            states = self.backbone(*inputs, layers=layers, convention=convention)
        states = states[:, :, : tokens.shape[1]]
        if self.config.action_tokens.insulate:
            states = states.detach()
        return states, final_states

    def _conditioning(self, batch: dict[str, Tensor], states: Tensor) -> Conditioning:
        return self.expert.encode_conditioning(states, batch[OBS_LANGUAGE_ATTENTION_MASK])


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
