"""What both policies do alike: loading, precision, freezing, the optimiser's groups."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from peft import PeftType
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from lerobot_gem.checkpoints.adapter_files import check_adapter_files
from lerobot_gem.checkpoints.files import StoredTensor, stored_policy_weights
from lerobot_gem.checkpoints.formats import built_from
from lerobot_gem.checkpoints.processor_files import check_processor_files
from lerobot_gem.checkpoints.size_limit import SizeLimit
from lerobot_gem.inference.control_rate import match_rate
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.next_token import next_token_losses
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.card_pictures import write_card_pictures
from lerobot_gem.policies.depth_loss import DRAWN, depth_losses, draw_images
from lerobot_gem.policies.destination import forget_destination
from lerobot_gem.policies.losses import SampleSums, over_processes
from lerobot_gem.policies.model_card import make_model_card
from lerobot_gem.processing.finite import check_finite, first_broken_parameter, is_finite
from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_PIXEL_VALUES, OBS_ROW_SAMPLES, OBS_SHOWN
from lerobot_gem.training.draws import drawing_by
from lerobot_gem.training.lora import check_adaptable, lora_targets
from lerobot_gem.training.micro_batches import in_parts
from lerobot_gem.training.processes import is_sharded, process_rank
from lerobot_gem.training.trainable import freeze_all_but, parameter_groups, trainable_parameters
from lerobot_gem.training.weights import store_weights

_STATISTICS = (
    "It was finite before it was normalised, so the statistics of the processor are not: train on a dataset that "
    "lerobot-gem-check passes."
)

# Classes of the repeated blocks of backbone, expert and depth generator.
_BLOCKS = ("Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock", "ExpertBlock", "SanaTransformerBlock")

# Where on the Hub a checkpoint is; not `force_download`, which would fetch the weights again for each other file.
_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only")


class BaseGemPolicy(PreTrainedPolicy):
    """A backbone, and a depth generator while it teaches.

    Attributes:
        config: Of the policy.
        backbone: The vision-language model.
        generator: The depth generator; None where no depth is learned.
        random_parts: Parts (`stages.PARTS`) whose weights were random when the policy was built.
    """

    config_class = BaseGemConfig
    name = "gem_base"

    config: BaseGemConfig
    backbone: GemBackbone
    generator: DepthGenerator | None
    random_parts: frozenset[str] = frozenset()
    # What sharded training gathers one after the other: LeRobot's later versions ask the class for it.
    _fsdp_wrap_modules: ClassVar[list[str]] = ["Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock"]
    # accelerate asks the policy for it, by which LeRobot 0.6.1 shards.
    _no_split_modules: list[str]

    _card_pictures: Sequence[str] = ()

    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        # lerobot-train seeds torch before it builds the policy, and tells a policy nothing of the run.
        self._seed = torch.initial_seed()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a checkpoint that LeRobot saved; needs no file but those in it.

        Raises:
            ValueError: Weights are missing, unexpected, of another shape, or cut short; the error names them. Or the
                configuration has other cameras than the checkpoint, whose processor would go on with its own. Or an
                adapter was trained in another stage. Or a file of the checkpoint could run code, or asks for sizes that its
                weights do not have (docs/security.md).
        """
        config = kwargs.get("config")
        if config is not None and config.use_peft and config.pretrained_path:
            # An adapter's folder, with processors of its own.
            check_adapter_files(config.pretrained_path, revision=config.pretrained_revision)
            check_processor_files(config.pretrained_path, revision=config.pretrained_revision)
            _check_stage_of_adapter(config)
        if config is not None:
            forget_destination(config)
            if kwargs.get("dataset_meta") is None:
                match_rate(config, config.built.fps)
        if _began_new(config, pretrained_name_or_path):
            return cls._base_of_adapter(**kwargs)
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name)}
        check_processor_files(pretrained_name_or_path, **hub)
        if config is not None:
            # It may have other cameras by the command line, and version 0.1 did not write what they were built as.
            stored: Any = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub)
            config.built.images = stored.built.images
            if kwargs.get("dataset_meta") is not None:
                config.record_base(pretrained_name_or_path, kwargs.get("revision"))
        file = f"{pretrained_name_or_path}/{CONFIG_NAME}"
        with SizeLimit(_weights_at(pretrained_name_or_path, hub), file), built_from(file):
            return super().from_pretrained(pretrained_name_or_path, weights_follow=True, **kwargs)

    @classmethod
    def _base_of_adapter(cls, config: Any, dataset_meta: Any = None, **kwargs: Any) -> Self:
        """What an adapter was trained on that began with a new policy: the policy as it was built then.

        Args:
            config: Of the adapter.
            dataset_meta: Metadata of the training dataset, when there is one.
            **kwargs: Not read; LeRobot passes what other policies need.
        """
        stages_done = config.built.stages_done
        policy = cls(config, dataset_meta=dataset_meta)
        config.built.stages_done = stages_done
        return policy.to(config.device).eval()

    def freeze(self) -> None:
        """Make trainable what stage and configuration say, and nothing else, and store weights in the types they say.

        Raises:
            ValueError: Nothing would be trained.
        """
        freeze_all_but(self, self.config.trainable_parts)
        self.store_weights()

    def store_weights(self) -> None:
        """Store each layer as it is trained or frozen now (`training/weights.py`); FSDP divides float32 instead."""
        if not is_sharded():
            store_weights(
                self,
                trainable=getattr(torch, self.config.weights),
                frozen=getattr(torch, self.config.dtype),
            )

    @contextmanager
    def own_draws(self) -> Iterator[None]:
        """Let a forward pass draw by the run's seed, step and process alone, and count the step; in training mode only."""
        if not self.training:
            yield
            return
        built = self.config.built
        with drawing_by(self._seed, built.steps_done, process_rank(), next(self.parameters()).device):
            yield
        built.steps_done += 1

    def measure(self, batch: Mapping[str, Any], batch_size: int) -> dict[str, SampleSums]:
        """The losses of a batch and what else is logged, in parts of `micro_batch_size` samples.

        In training mode their means are over all processes, which wait for each other.

        Args:
            batch: Preprocessed.
            batch_size: Its samples B.
        """
        share = self.config.depth.share
        if self.generator is not None and self.training and share < 1:
            shown = self._shown(batch, batch_size)
            cameras, supervision = self.config.camera_names, self.config.depth_supervision
            batch = {**batch, DRAWN: draw_images(share, shown, batch, cameras, supervision)}
        parts = in_parts(self._sums, batch, batch_size, self.config.micro_batch_size)
        sums = {name: SampleSums.join([part[name] for part in parts]) for name in parts[0]}
        return over_processes(sums) if self.training else sums

    def _sums(self, batch: dict[str, Any]) -> dict[str, SampleSums]:
        """The losses of the stage by name, unweighted, and what else is logged."""
        raise NotImplementedError

    def _depth_sums(
        self, batch: dict[str, Any], states: Tensor, tokens: Tensor, batch_size: int
    ) -> dict[str, SampleSums]:
        """Those of the depth loss.

        Args:
            batch: Preprocessed.
            states: (R, L, D), final states of the prompts.
            tokens: (R, L).
            batch_size: Samples B.
        """
        assert self.generator is not None
        losses = depth_losses(
            self.generator,
            *self.backbone.vision_spans(states, tokens),
            shown=[(sample, camera) for sample, camera in self._shown(batch, batch_size).tolist()],
            batch=batch,
            cameras=self.config.camera_names,
            supervision=self.config.depth_supervision,
            drawn=batch.get(DRAWN),
        )
        return losses.sums(batch_size)

    def _language_sums(
        self, states: Tensor, prompts: Mapping[str, Tensor], batch_size: int
    ) -> dict[str, SampleSums]:
        """Those of the answers.

        Args:
            states: (R, L, D), final states of the prompts.
            prompts: Their labels (R, L) and samples (R,), as `PromptStep` writes them.
            batch_size: Samples B.
        """
        answers = next_token_losses(self.backbone, states, prompts[OBS_LABELS], ignored=IGNORED)
        samples = prompts[OBS_ROW_SAMPLES][answers.rows]
        return {
            "language": SampleSums.of(answers.losses, samples, batch_size),
            "accuracy": SampleSums.of(answers.right, samples, batch_size),
        }

    def _shown(self, batch: Mapping[str, Any], batch_size: int) -> Tensor:
        """(N, 2), sample and camera of each image of the prompts; where nothing says, each sample shows all cameras."""
        if OBS_SHOWN in batch:
            return batch[OBS_SHOWN]
        cameras = len(self.config.camera_names)
        return torch.ones(batch_size, cameras, device=batch[OBS_PIXEL_VALUES].device).nonzero()

    def declare_blocks(self) -> None:
        """Name the classes of the repeated blocks, which sharded training (FSDP) gathers one at a time.

        accelerate refuses a class that a model lacks, and a policy without depth has no generator. So what is
        declared is what was built, for the class as well: a process trains one policy.
        """
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = [name for name in _BLOCKS if name in present]
        type(self)._fsdp_wrap_modules = self._no_split_modules

    def check_losses(self, losses: Tensor, logs: Mapping[str, float], batch: Mapping[str, Any]) -> None:
        """Raise a ValueError if a loss is not finite, before anything learns from it.

        Looks at the logs, which were waited for already.

        Args:
            losses: (B,), one of each sample.
            logs: Means of the losses.
            batch: Preprocessed.

        Raises:
            ValueError: It names the frame, and what is not finite there.
        """
        if all(math.isfinite(value) for value in logs.values()):
            return
        self._find_cause(batch)
        check_finite(
            "The loss",
            losses.detach(),
            batch,
            f"Input and weights are finite ({dict(logs)}): lower the learning rate, or train with --policy.dtype=float32.",
        )
        raise ValueError(f"A loss is not finite: {dict(logs)}. Lower the learning rate.")

    def _find_cause(self, batch: Mapping[str, Any]) -> None:
        """Raise a ValueError if weights or a preprocessed batch hold NaN or infinity."""
        broken = first_broken_parameter(self)
        if broken is not None:
            raise ValueError(
                f"The weights {broken!r} hold NaN or infinity: expected finite numbers. Go on from an earlier checkpoint with a "
                "lower learning rate."
            )
        for key in (OBS_STATE, ACTION, OBS_PIXEL_VALUES):
            if isinstance(batch.get(key), Tensor):
                # Patches have no row for each sample.
                frames = {} if key == OBS_PIXEL_VALUES else batch
                check_finite(f"{key}, normalised,", batch[key], frames, _STATISTICS)

    def update(self) -> None:
        """LeRobot's hook, called after each step of the optimiser, which then waits for the loss.

        Raises:
            ValueError: The step made weights that are not finite, from a finite loss. Nothing of it is saved.
        """
        for part in (self.backbone, *self._parts_beside_backbone()):
            # Clipping the gradient's norm spreads NaN to all weights alike, so that one of each part is enough.
            for weight in trainable_parameters(part)[-1:]:
                if not is_finite(weight.detach()):
                    raise ValueError(
                        f"The last step made weights ({first_broken_parameter(self)!r}) that are not finite: its loss was finite, its "
                        "gradient not. Lower the learning rate, or train with --policy.dtype=float32; go on from the last "
                        "checkpoint, which is from before that step."
                    )

    def autocast(self) -> torch.autocast:
        """The configured precision. LeRobot applies it in training only; applied here, inference computes the same."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def get_optim_params(self) -> list[dict[str, Any]]:
        """The optimiser's groups: the backbone at its own learning rate, and all else; without what is frozen."""
        config = self.config
        return parameter_groups(
            *self._parts_beside_backbone(),
            backbone=self.backbone,
            lr=config.optimizer_lr,
            lr_backbone=config.optimizer_lr_backbone,
            muon=config.optimizer_name == "muon",
        )

    # LoRA

    def wrap_with_peft(self, peft_config: Any = None, peft_cli_overrides: Any = None) -> Any:
        """LeRobot's hook: this policy with adapters, which name the checkpoint that they were trained on.

        Raises:
            ValueError: An adapter could not be loaded again (`training/lora.py`).
        """
        if not self.config.pretrained_path:
            self.name_or_path = self.config.backbone.pretrained
        adapted = super().wrap_with_peft(peft_config, peft_cli_overrides)
        for module in adapted.modules():
            if isinstance(module, ModulesToSaveWrapper):
                # PEFT trains a copy, and keeps the original for a return to it, which costs as much memory again.
                module.original_module = nn.Identity()
        self.store_weights()  # what the adapters change is frozen now
        return adapted

    def _get_default_peft_targets(self) -> dict[str, Any]:
        return lora_targets(self, self.config.trainable_parts, self.random_parts)

    def _validate_peft_config(self, peft_config: Any) -> None:
        check_adaptable(self.config.trainable_parts, self.random_parts)

    def _preprocess_peft_cli_overrides(self, cli_overrides: dict, peft_method_type: Any) -> dict:
        overrides = super()._preprocess_peft_cli_overrides(cli_overrides, peft_method_type)
        if peft_method_type == PeftType.LORA and overrides.get("lora_alpha") is None:
            # PEFT's own is 8 for every rank.
            overrides["lora_alpha"] = 2 * (overrides.get("r") or 8)
        return overrides

    def _parts_beside_backbone(self) -> list[nn.Module]:
        return [] if self.generator is None else [self.generator]

    def generate_model_card(
        self,
        dataset_repo_id: str | None,
        model_type: str,
        license: str | None,
        tags: list[str] | None,
        cfg: Any = None,
        dataset_meta: Any = None,
    ) -> ModelCard:
        """LeRobot's hook; the card is our own (model_card.py), and says type, licence and tags of the configuration."""
        return make_model_card(
            self.config,
            dataset=dataset_repo_id,
            cfg=cfg,
            dataset_meta=dataset_meta,
            pictures=self._card_pictures,
        )

    def push_model_to_hub(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
        """Push the policy, and the pictures of its card, which LeRobot leaves out of its upload."""
        with TemporaryDirectory() as folder:
            self._card_pictures = write_card_pictures(Path(cfg.output_dir), Path(folder))
            super().push_model_to_hub(cfg, *args, **kwargs)
            if self._card_pictures:
                HfApi().upload_folder(
                    repo_id=self.config.repo_id,
                    folder_path=folder,
                    commit_message="Upload the card's pictures",
                )


def _weights_at(pretrained: str | Path, hub_kwargs: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """What the weights of a checkpoint are, without them."""
    file = Path(pretrained) / SAFETENSORS_SINGLE_FILE
    if not Path(pretrained).is_dir():
        file = Path(hf_hub_download(str(pretrained), SAFETENSORS_SINGLE_FILE, **hub_kwargs))
    return stored_policy_weights(file)


def _began_new(config: Any, base: str | Path) -> bool:
    """Whether a configuration is that of an adapter that was trained on a new policy: its base is then no policy yet."""
    return config is not None and config.use_peft and str(base) == config.backbone.pretrained


def _check_stage_of_adapter(config: Any) -> None:
    trained: Any = PreTrainedConfig.from_pretrained(
        config.pretrained_path, revision=config.pretrained_revision
    )
    if trained.current_stage != config.current_stage:
        raise ValueError(
            f"stage={config.current_stage!r}, but --policy.path={config.pretrained_path} is an adapter of another stage, "
            f"{trained.current_stage!r}, which trained other layers: merge it first (lerobot-gem-convert --format=policy), and go on "
            "from the whole policy."
        )


def language_logs(sums: Mapping[str, SampleSums]) -> dict[str, float]:
    """What is logged of the answers that were learned."""
    return {"language_loss": sums["language"].mean(), "token_accuracy": sums["accuracy"].mean()}
