"""What of GEM-VLA acts: the queue of actions, chunks by flow or in tokens, real-time chunking, and weights that do no more."""

from collections import deque
from pathlib import Path
from typing import Any, Self

import torch
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor

from lerobot_gem.inference.acting import ChunkInputs, ChunkSampler, Observation, PromptMemory
from lerobot_gem.inference.compiled import TOLERANCES, CompiledSampler
from lerobot_gem.inference.failed_chunks import failed_chunks, watch_chunks
from lerobot_gem.inference.quantization import check_quantizable, quantize
from lerobot_gem.inference.real_time_chunking import guided_integrator
from lerobot_gem.inference.token_acting import ActionTokenWriter
from lerobot_gem.models.action_expert import ActionExpert, Integrator
from lerobot_gem.policies.base_policy import BaseGemPolicy
from lerobot_gem.policies.command_line import check_switches
from lerobot_gem.policies.finite_training import check_inputs
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.action_turn import ActionTurn
from lerobot_gem.processing.finite import check_finite, is_finite
from lerobot_gem.processing.steps import OBS_GRID_THW, OBS_PIXEL_VALUES


class ActingPolicy(BaseGemPolicy):
    """A backbone and an action expert that act.

    Attributes:
        expert: Samples chunks.
        action_turn: The action tokens; None where none were learned.
    """

    _use = "act"
    # Emptied by LeRobot's `drop_queued_actions` (main, August 2026) when a new task is typed in.
    _action_queue_attrs = ("_actions",)

    config: GemVLAConfig
    expert: ActionExpert
    action_turn: ActionTurn | None

    def check_acting(self, dataset_meta: Any) -> None:
        """Refuse ways of acting that don't fit the configuration, which lerobot-rollout changes when it was checked already.

        Args:
            dataset_meta: Metadata of the training dataset, when there is one.

        Raises:
            ValueError: One does not fit.
            ConfigurationError: An option of the command line does nothing.
        """
        config = self.config
        if dataset_meta is None:
            check_switches(config)
            config.check_steps()
            config.check_expert()
        if config.quantization and (self._is_quantized or config.use_peft) and dataset_meta is None:
            check_quantizable(str(config.device), adapted=config.use_peft)
            config.check_quantization()
        if config.compile_model and config.action_tokens.act == "tokens":
            raise ValueError(
                "compile_model=true with action_tokens.act='tokens': what writes tokens is not compiled. Expected "
                "--policy.compile_model=false (lerobot-rollout: no --use_torch_compile), or --policy.action_tokens.act=flow."
            )

    def begin(self) -> None:
        """Make what a policy remembers from chunk to chunk; called once, when its modules are built."""
        self._prompts = PromptMemory()
        self._compiled: CompiledSampler | None = None
        self.init_rtc_processor()
        self.reset()

    def reset(self) -> None:
        """Forget the queued actions; called at the start of an episode."""
        self._actions: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The next action (B, A), normalised; predicts a chunk when the last one is used up.

        Args:
            batch: Preprocessed observation.
            **kwargs: Those of `predict_action_chunk`.

        Raises:
            RuntimeError: Real-time chunking is on, which keeps a queue of its own.
        """
        if self._rtc_enabled():
            raise RuntimeError(
                "select_action does not work with real-time chunking, which queues actions itself: use "
                "predict_action_chunk, or --inference.type=sync."
            )
        if not self._actions:
            chunk = self.predict_action_chunk(batch, **kwargs)
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
            RuntimeError: Real-time chunking was asked for without `init_rtc_processor`.
            ValueError: Tokens are asked of a policy that was loaded without them. Or the chunk is not finite: looking costs no time, since
                whoever asks for a chunk waits for it. Or its shapes change too often to be compiled.
        """
        if self.training:  # else each chunk would walk over all modules
            self.eval()
        integrate: Integrator | None = None
        if self._rtc_enabled():
            if self.rtc_processor is None:
                raise RuntimeError(
                    "rtc_config.enabled=true was set on a policy that was built already, and nothing guides its chunks: call "
                    "init_rtc_processor() after it, as lerobot-rollout does."
                )
            integrate = guided_integrator(self.rtc_processor, inference_delay, prev_chunk_left_over)
        with self.autocast():
            if self.config.action_tokens.act == "tokens":
                chunk = self._write(self._observation(batch), generator)
            else:
                self.config.check_expert()  # the way of acting may change after the policy was built
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
        if turn is None or not self.backbone.is_complete:
            raise ValueError(
                "action_tokens.act='tokens', but this policy was loaded to act by flow, without what writes tokens, or has learned none: "
                "expected --policy.action_tokens.act=tokens when it is loaded, and a checkpoint that was trained with "
                "action_tokens.loss_weight above 0."
            )
        turn.check_length(options.max_coefficients)  # may change after the policy was built
        writer = ActionTokenWriter(self.backbone, turn.prefix, turn.first_row, turn.tokens.lengths.tolist())
        written = writer.write(
            *observation[:4],
            coefficients=options.max_coefficients or turn.coefficients,
            temperature=options.temperature,
            generator=generator,
        )
        return turn.chunks(written, options.max_coefficients).to(observation.tokens.device)

    def supports_rtc(self) -> bool:
        """LeRobot's hook: it guides the flow. That tokens are not guided, `init_rtc_processor` says, and what to do."""
        return True

    def init_rtc_processor(self) -> None:
        """LeRobot's hook, called again after it has set `config.rtc_config`.

        Raises:
            ValueError: Real-time chunking is asked for where the policy acts by tokens.
        """
        if self._rtc_enabled():
            self.config.check_guided()
        self.rtc_processor = RTCProcessor(self.config.rtc_config) if self.config.rtc_config else None
        if self._rtc_enabled():
            watch_chunks()

    def _rtc_enabled(self) -> bool:
        return self.config.rtc_config is not None and self.config.rtc_config.enabled

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
        return self._only_used and self.config.quantization is not None

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        if self._is_quantized:
            raise ValueError(
                f"This policy was loaded with quantization={self.config.quantization!r}, whose weights are made to act and not to be "
                "saved: load it without, and save that."
            )
        if self._coarse:
            self.config.built.acts_alone = True
        super()._save_pretrained(save_directory, **kwargs)

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        super()._load_as_safetensor(model, model_file, map_location, strict)
        if model._is_quantized:
            model._coarse = model.config.quantization
            quantize((model.backbone.vision_tower, model.backbone.language_model))
        return model
