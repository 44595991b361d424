"""What of GEM-VLA learns: the losses of stage 4 of one part of a batch."""

from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from lerobot_gem.models.conditioning import Conditioning
from lerobot_gem.models.distillation import one_step_loss, sample_each
from lerobot_gem.models.next_token import next_token_losses
from lerobot_gem.policies.gem_vla.acting import ActingPolicy
from lerobot_gem.policies.language_loss import language_sums
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.policies.teacher import TAUGHT, TAUGHT_FROM
from lerobot_gem.processing.action_turn import TurnRows
from lerobot_gem.processing.prompt_dropout import draw_kept, leave_out
from lerobot_gem.processing.steps import IGNORED, OBS_GRID_THW, OBS_PIXEL_VALUES, OBS_QUESTIONS
from lerobot_gem.training.stages import STAGES


class LearningPolicy(ActingPolicy):
    """A backbone and an action expert that learn, and the depth generator that teaches."""

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
