"""GEM-VLA as a LeRobot policy: backbone and action expert, and the depth generator while it teaches."""

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from lerobot_gem.checkpoints.files import load_policy_weights
from lerobot_gem.inference.acting import ChunkInputs, ChunkSampler, Observation, PromptMemory
from lerobot_gem.inference.compiled import TOLERANCES, CompiledSampler
from lerobot_gem.inference.failed_chunks import failed_chunks, watch_chunks
from lerobot_gem.inference.quantization import check_quantizable, quantize
from lerobot_gem.inference.real_time_chunking import guided_integrator
from lerobot_gem.inference.token_acting import ActionTokenWriter
from lerobot_gem.models.action_expert import ActionExpert, Integrator
from lerobot_gem.models.conditioning import Conditioning
from lerobot_gem.models.distillation import one_step_loss, sample_each
from lerobot_gem.models.next_token import next_token_losses
from lerobot_gem.models.precision import autocast_weights, token_tables
from lerobot_gem.policies.action_turn_building import build_action_turn
from lerobot_gem.policies.base_policy import BaseGemPolicy
from lerobot_gem.policies.building import build_backbone, build_expert, build_generator, random_parts
from lerobot_gem.policies.depth_loss import depth_logs
from lerobot_gem.policies.finite_training import check_inputs, check_losses
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.language_loss import language_logs, language_sums
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.policies.question_batches import build_question_batches
from lerobot_gem.policies.teacher import TAUGHT, TAUGHT_FROM, Teacher
from lerobot_gem.processing.action_turn import TurnRows
from lerobot_gem.processing.finite import check_finite, is_finite
from lerobot_gem.processing.prompt_dropout import draw_kept, leave_out
from lerobot_gem.processing.statistics import stands_still
from lerobot_gem.processing.steps import IGNORED, OBS_GRID_THW, OBS_PIXEL_VALUES, OBS_QUESTIONS
from lerobot_gem.training.draws import drawing_apart
from lerobot_gem.training.stages import STAGES, skipped_before
from lerobot_gem.training.trainable import log_parts

logger = logging.getLogger(__name__)

# What the expert's loss draws at random unless it is given.
_DRAWS = ("noise", "time")


class GemVLAPolicy(BaseGemPolicy):
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
    # Emptied by LeRobot's `drop_queued_actions` (main, August 2026) when a new task is typed in.
    _action_queue_attrs = ("_actions",)

    config: GemVLAConfig
    expert: ActionExpert

    @drawing_apart()
    def __init__(
        self, config: GemVLAConfig, dataset_meta: Any = None, weights_follow: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(config)
        config.validate_features()
        # Nothing trains it: LeRobot gives the metadata of the dataset to what is trained.
        self._only_acts = dataset_meta is None and weights_follow
        if dataset_meta is None:
            config.check_steps()
        if config.quantization and (self._is_quantized or config.use_peft) and dataset_meta is None:
            check_quantizable(str(config.device), adapted=config.use_peft)
            config.check_quantization()
        # lerobot-rollout sets compile_model when the configuration was checked already.
        if config.compile_model and config.action_tokens.act == "tokens":
            raise ValueError(
                "compile_model=true with action_tokens.act='tokens': what writes tokens is not compiled. Expected "
                "--policy.compile_model=false (lerobot-rollout: no --use_torch_compile), or --policy.action_tokens.act=flow."
            )
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
        num_layers = None if with_depth or writes else max(config.conditioning_layers)
        self.backbone = build_backbone(
            config,
            weights_follow=weights_follow,
            num_layers=num_layers,
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
        self._teacher: Teacher | None = None
        if dataset_meta is not None:
            if config.distillation.teacher is not None:
                self._teacher = Teacher(config, dataset_meta)
            config.settle_steps()
            config.settle_acting()
            config.record_training(dataset_meta)
        self.freeze()
        if dataset_meta is not None:
            log_parts(self)
        self.declare_blocks()
        self._prompts = PromptMemory()
        self._compiled: CompiledSampler | None = None
        self.init_rtc_processor()
        self.reset()

    # Training

    def forward(
        self, batch: dict[str, Any], reduction: str = "mean", **draws: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """The losses of stage 4 (stages.py), weighted and added.

        Args:
            batch: A preprocessed batch with `action` (B, chunk_size, A) and, if any, `action_is_pad` (B, chunk_size): frames
                past the end of an episode carry no loss.
            reduction: "mean" gives a scalar, "none" one loss per sample (B,).
            **draws: What the expert's `loss` draws at random otherwise.

        Raises:
            ValueError: Depth, tokens or answers are to be learned, but the policy was loaded to act and lacks what learns them.
        """
        self._check_learns()
        batch_size = len(batch[ACTION])
        with self.own_draws():
            batch = self._with_dropout(batch)
            if self.questions is not None and self.training:
                batch = {**batch, OBS_QUESTIONS: self.questions.draw(batch_size, batch[ACTION].device)}
            if self._teacher is not None:
                # Once for the whole batch: micro-batches are computed twice.
                batch = batch | self._teacher.teach(
                    type(self), batch, self._noise_to_teach_from(batch, draws.get("noise"))
                )
            sums = self.measure({**batch, **draws}, batch_size)
        logs = {"action_loss": sums["action"].mean()}
        if "tokens" in sums:
            logs |= {"token_loss": sums["tokens"].mean(), "action_token_accuracy": sums["right"].mean()}
        if "language" in sums:
            logs |= language_logs(sums)
        if self.generator is not None:
            logs |= depth_logs(sums)
        weighted = [weight * sums[loss].per_sample() for loss, weight in self.config.loss_weights.items()]
        per_sample = torch.stack(weighted).sum(dim=0)
        check_losses(self, per_sample, logs, batch)
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
            conditioning, final_states = self._observe(batch, turns)
            losses = self._action_losses(batch, actions, is_pad, conditioning)
            sums = {"action": SampleSums(losses, torch.ones_like(losses, dtype=torch.long))}
            if self.generator is not None and final_states is not None:
                tokens = batch[OBS_LANGUAGE_TOKENS]
                sums |= self._depth_sums(batch, final_states[:, : tokens.shape[1]], tokens, len(losses))
            if turns is not None and final_states is not None:
                sums |= self._token_sums(final_states, turns, is_pad)
            if "language" in self.config.loss_weights:
                sums |= self._question_sums(batch.get(OBS_QUESTIONS), losses)
        return sums

    def _token_sums(self, states: Tensor, turns: TurnRows, is_pad: Tensor | None) -> dict[str, SampleSums]:
        """Those of the action tokens: each chunk counts alike, however many tokens it has, and one of padding alone not."""
        written = next_token_losses(self.backbone, states, turns.labels, ignored=IGNORED)
        summed = SampleSums.of(written.losses, written.rows, len(states))
        means = summed.sums / summed.counts
        if is_pad is not None:
            means = means.masked_fill(is_pad.all(dim=1), 0)
        return {
            "tokens": SampleSums(means, torch.ones_like(summed.counts)),
            "right": SampleSums.of(written.right, written.rows, len(states)),
        }

    def _question_sums(self, questions: dict[str, Tensor] | None, like: Tensor) -> dict[str, SampleSums]:
        """Those of the answers that are learned beside actions; zeros (B,) like another loss where nothing is asked."""
        if questions is None or not len(questions[OBS_LANGUAGE_TOKENS]):
            none = SampleSums(torch.zeros_like(like), torch.zeros_like(like, dtype=torch.long))
            return {"language": none, "accuracy": none}
        states = self.backbone.final_states(
            questions[OBS_LANGUAGE_TOKENS],
            questions[OBS_LANGUAGE_ATTENTION_MASK],
            questions[OBS_PIXEL_VALUES],
            questions[OBS_GRID_THW],
        )
        return language_sums(self.backbone, states, questions, len(like))

    def _action_losses(
        self, batch: dict[str, Any], actions: Tensor, is_pad: Tensor | None, conditioning: Conditioning
    ) -> Tensor:
        """(B,): distances to the teacher's chunks, or the flow's loss of the demonstrated ones."""
        if TAUGHT in batch:
            return one_step_loss(
                self.expert, batch[TAUGHT], batch[TAUGHT_FROM], conditioning, self._state(batch)
            )
        return self.expert.loss(
            actions,
            is_pad,
            conditioning,
            self._state(batch),
            **{name: batch[name] for name in _DRAWS if name in batch},
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
            conditioning, _ = self._observe(batch, None)
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

    def get_optim_params(self) -> list[dict[str, Any]]:
        """The optimiser's groups.

        Raises:
            ValueError: The policy was loaded to act, with weights too coarse to learn.
        """
        if self._only_acts and (self.config.dtype == "bfloat16" or self._is_quantized):
            raise ValueError(
                f"This policy was loaded to act: its weights are {self.config.quantization or self.config.dtype}. To train it, load it with the metadata of the dataset, as "
                "lerobot-train does (LeRobot's make_policy with ds_meta), or with dtype='float32' and no "
                "quantization."
            )
        return super().get_optim_params()

    def _parts_beside_backbone(self) -> list[nn.Module]:
        return [self.expert, *super()._parts_beside_backbone()]

    def _get_default_peft_targets(self) -> dict[str, Any]:
        targets = super()._get_default_peft_targets()
        if self.config.learns_tokens:
            # Rows of action tokens are new to the backbone: a layer that is adapted leaves them as they are.
            rows = [f"backbone.{name}" for name in self.backbone.token_layers]
            targets["target_modules"] = [name for name in targets["target_modules"] if name not in rows]
            targets["modules_to_save"] = [*targets["modules_to_save"], *rows]
        return targets

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

    # LeRobot's rollout compiles this function when it is told to compile; what is worth it is compiled within.
    @torch.compiler.disable
    # no_grad, not inference_mode: real-time chunking differentiates the sampled chunk.
    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Sample a chunk of normalised actions (B, chunk_size, A).

        Args:
            batch: Preprocessed observation.
            noise: (B, chunk_size, A); drawn if None.
            inference_delay: Real-time chunking: actions executed while this chunk is computed.
            prev_chunk_left_over: Real-time chunking: the unexecuted rest of the last chunk.
            generator: Draws action tokens, when acting by tokens at a temperature above 0.
            **kwargs: Not read; LeRobot passes what other policies need.

        Raises:
            ValueError: The chunk is not finite. Looking costs no time, since whoever asks for a chunk waits for it. Or its shapes
                change too often to be compiled.
        """
        self.eval()
        integrate: Integrator | None = None
        if self.rtc_processor is not None and self._rtc_enabled():
            integrate = guided_integrator(self.rtc_processor, inference_delay, prev_chunk_left_over)
        with self.autocast():
            if self.config.action_tokens.act == "tokens":
                chunk = self._write(self._observation(batch), generator)
            else:
                chunk = self._sample(self._observation(batch), noise, integrate)
        if not is_finite(chunk):
            check_inputs(self, batch)
            check_finite(
                "The chunk of actions", chunk, batch, "Input and weights are finite: report this as a bug."
            )
        failed_chunks.succeeded()
        return chunk

    def _sample(self, observation: Observation, noise: Tensor | None, integrate: Integrator | None) -> Tensor:
        prompt = self._prompts.prepare(self.backbone, observation)
        if noise is None:
            shape = len(observation.tokens), self.config.chunk_size, self.expert.action_dim
            noise = torch.randn(shape, device=observation.tokens.device)
        inputs = ChunkInputs(prompt, observation.mask, observation.pixel_values, observation.state, noise)
        layers = tuple(self.config.conditioning_layers)
        steps = self.config.expert.num_inference_steps  # may change after the policy was built
        sample = ChunkSampler(self.backbone, self.expert, layers, self.config.reading)
        if not self.config.compile_model:
            return sample(inputs, steps, integrate)
        if self._compiled is None:
            self._compiled = CompiledSampler(sample, TOLERANCES[self.config.dtype])
        return self._compiled(inputs, steps, integrate)

    def _write(self, observation: Observation, generator: torch.Generator | None) -> Tensor:
        """A chunk (B, T, A) in tokens."""
        turn, options = self.action_turn, self.config.action_tokens
        assert turn is not None
        turn.check_error(options.max_coefficients)  # may change after the policy was built
        writer = ActionTokenWriter(self.backbone, turn.prefix, turn.first_row, turn.tokens.lengths.tolist())
        written = writer.write(
            *observation[:4],
            coefficients=min(options.max_coefficients or turn.coefficients, turn.coefficients),
            temperature=options.temperature,
            generator=generator,
        )
        return turn.chunks(written, options.max_coefficients).to(observation.tokens.device)

    def supports_rtc(self) -> bool:
        """GEM-VLA samples by flow integration, which real-time chunking can guide; tokens are not integrated."""
        return self.config.action_tokens.act == "flow"

    def init_rtc_processor(self) -> None:
        """LeRobot's hook, called again after it has set `config.rtc_config`.

        Raises:
            ValueError: Real-time chunking is asked for where the policy acts by tokens.
        """
        if self._rtc_enabled() and not self.supports_rtc():
            raise ValueError(
                f"rtc_config.enabled=true with action_tokens.act={self.config.action_tokens.act!r}: real-time chunking guides the "
                "expert's flow. Expected --policy.action_tokens.act=flow, or --inference.type=sync."
            )
        self.rtc_processor = RTCProcessor(self.config.rtc_config) if self.config.rtc_config else None
        if self._rtc_enabled():
            watch_chunks()

    def _rtc_enabled(self) -> bool:
        return self.config.rtc_config is not None and self.config.rtc_config.enabled

    # What both need

    def _observe(
        self, batch: dict[str, Tensor], turns: TurnRows | None
    ) -> tuple[Conditioning, Tensor | None]:
        """What the expert reads of the prompts, and the final states (B, L, D) if something learns from them.

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
        return self.expert.encode_conditioning(states, mask), final_states

    def _observation(self, batch: dict[str, Tensor]) -> Observation:
        return Observation(
            batch[OBS_LANGUAGE_TOKENS],
            batch[OBS_LANGUAGE_ATTENTION_MASK],
            batch[OBS_PIXEL_VALUES],
            batch[OBS_GRID_THW],
            self._state(batch),
        )

    def _state(self, batch: dict[str, Tensor]) -> Tensor | None:
        if self.config.state_feature is None:
            return None
        return self.config.limits.of_state(batch[OBS_STATE])

    # Checkpoints

    @property
    def _is_quantized(self) -> bool:
        return self._only_acts and self.config.quantization is not None

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        if self._is_quantized:
            raise ValueError(
                f"This policy was loaded with quantization={self.config.quantization!r}, whose weights are made to act and not to be "
                "saved: load it without, and save that."
            )
        if self._only_acts and self.config.dtype == "bfloat16":
            self.config.built.acts_alone = True
        super()._save_pretrained(save_directory, **kwargs)

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        def is_for_training(name: str) -> bool:
            part, _, rest = name.partition(".")
            return part == "generator" or (part == "backbone" and model.backbone.has_no_place_for(rest))

        # A policy trained with a depth loss or to write acts without the generator and the layers that only they read.
        leave_out = is_for_training if model.generator is None else None
        dtypes: dict[str, torch.dtype] = {}
        tables = token_tables(model)
        if model._only_acts and model.config.dtype == "bfloat16":
            dtypes = dict.fromkeys(autocast_weights(model) | tables, torch.bfloat16)
        load_policy_weights(model, model_file, leave_out=leave_out, dtypes=dtypes, if_exact=tables)
        if model._is_quantized:
            quantize((model.backbone.vision_tower, model.backbone.language_model))
        return model


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
