"""What both policies do alike, as LeRobot's hooks: loading, training, adapters, sharing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.constants import CONFIG_NAME
from lerobot.policies.pretrained import PreTrainedPolicy
from peft import PeftType
from torch import Tensor, nn

from lerobot_gem.checkpoints.adapters import check_base, needing_base
from lerobot_gem.checkpoints.files import fingerprint, load_policy_weights
from lerobot_gem.checkpoints.formats import built_from
from lerobot_gem.checkpoints.processor_files import check_processor_files
from lerobot_gem.inference.control_rate import match_rate
from lerobot_gem.inference.motor_order import check_motor_order
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.precision import autocast_weights, token_tables
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.building import store_as_configured
from lerobot_gem.policies.card_pictures import write_card_pictures
from lerobot_gem.policies.command_line import check_start
from lerobot_gem.policies.depth_loss import DRAWN, depth_losses, draw_images
from lerobot_gem.policies.destination import forget_destination
from lerobot_gem.policies.finite_training import check_losses, check_updated
from lerobot_gem.policies.loading import (
    HUB_ARGUMENTS,
    base_weights,
    began_new,
    check_adapter,
    check_type,
    recall_images,
    size_limit,
)
from lerobot_gem.policies.losses import SampleSums, over_processes
from lerobot_gem.policies.model_card import make_model_card
from lerobot_gem.processing.steps import OBS_PIXEL_VALUES, OBS_SHOWN
from lerobot_gem.training.draws import drawing_by
from lerobot_gem.training.lora import (
    check_adaptable,
    check_not_frozen,
    check_options,
    check_saved,
    drop_originals,
    log_adapters,
    lora_targets,
)
from lerobot_gem.training.micro_batches import check_divides, in_parts
from lerobot_gem.training.processes import process_rank
from lerobot_gem.training.trainable import freeze_all_but, parameter_groups, trainable_parameters
from lerobot_gem.training.weights import watch_rounding

# Classes of the repeated blocks of backbone, expert and depth generator.
_BLOCKS = (
    "Qwen3VLTextDecoderLayer",
    "KeyValueLayer",
    "Qwen3VLVisionBlock",
    "ExpertBlock",
    "SanaTransformerBlock",
)


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

    # What a policy is for that nothing trains, in messages.
    _use: ClassVar[str] = ""
    # The type of weights that were loaded for that, where they are too coarse to learn.
    _coarse: str | None = None
    _card_pictures: Sequence[str] = ()

    def __init__(self, config: Any, dataset_meta: Any = None, weights_follow: bool = False) -> None:
        super().__init__(config)
        # Nothing trains it: LeRobot gives the metadata of the dataset to what is trained.
        self._only_used = dataset_meta is None and weights_follow
        # lerobot-train seeds torch before it builds the policy, and tells a policy nothing of the run.
        self._seed = torch.initial_seed()
        # Samples of a whole batch: the most that one had until now.
        self.batch_size = 0

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a checkpoint that LeRobot saved; needs no file but those in it.

        Raises:
            FileNotFoundError: There is no checkpoint, or an adapter's base is not there.
            ValueError: Weights are missing, unexpected, of another shape, or cut short; the error names them. Or it is a checkpoint
                of another policy. Or the configuration has other cameras than the checkpoint, whose processor would go on with its
                own. Or it is an adapter, was trained in another stage, or on other weights than its base has now. Or a file of the
                checkpoint could run code, or asks for sizes that its weights do not have (docs/reference/security.md). Or the robot of
                `lerobot-rollout` has the motors of the training data in another order.
        """
        config = kwargs.get("config")
        with_data = kwargs.get("dataset_meta") is not None
        if config is not None:
            check_adapter(config)
            if with_data:
                check_start(config)
            forget_destination(config)
            if not with_data:
                check_motor_order(config)
                match_rate(config, config.built.fps)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name)}
        if config is not None and config.use_peft:
            adapter, recorded = config.pretrained_path or "in use", config.built.base_fingerprint
            with needing_base(adapter, pretrained_name_or_path):
                weights = base_weights(config, pretrained_name_or_path, hub)
            check_base(adapter, recorded, pretrained_name_or_path, weights)
        if began_new(config, pretrained_name_or_path):
            return cls._base_of_adapter(**kwargs)
        check_type(pretrained_name_or_path, cls.name, hub)
        check_processor_files(pretrained_name_or_path, **hub)
        described = f"{pretrained_name_or_path}/{CONFIG_NAME}"
        if config is not None:
            described += " (with options that were given in place of its own)"
        with built_from(described), size_limit(pretrained_name_or_path, hub):
            if config is not None:
                recall_images(config, pretrained_name_or_path, hub)
                if with_data:
                    config.record_base(pretrained_name_or_path, kwargs.get("revision"))
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
        """Store each layer as it is trained or frozen now, and watch that no optimiser rounds its updates away."""
        store_as_configured(self.config, self)
        if self.config.trainable_dtype == "bfloat16":
            watch_rounding(self)

    @contextmanager
    def own_draws(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Let a forward pass draw by the run's seed, step and process alone, and count the step.

        A validation draws by seed and frame, so that one differs from the next by the weights alone, and training goes on as if there
        had been none. Without a frame's number, torch's generator decides.

        Args:
            batch: Preprocessed.
        """
        if not self.training and "index" not in batch:
            yield
            return
        built = self.config.built
        number = built.steps_done if self.training else int(batch["index"][0])
        with drawing_by(self._seed, number, process_rank(), next(self.parameters()).device):
            yield
        if self.training:
            built.steps_done += 1

    def measure(self, batch: Mapping[str, Any], batch_size: int) -> dict[str, SampleSums]:
        """The losses of a batch and what else is logged, in parts of `micro_batch_size` samples.

        In training mode their means are over all processes, which wait for each other.

        Args:
            batch: Preprocessed.
            batch_size: Its samples B.

        Raises:
            ValueError: `micro_batch_size` does not divide a whole batch.
        """
        if self.training:
            self._check_parts(batch_size)
        share = self.config.depth.share
        if self.generator is not None and self.training and share < 1:
            shown = self._shown(batch, batch_size)
            cameras, supervision = self.config.camera_names, self.config.depth_supervision
            batch = {**batch, DRAWN: draw_images(share, shown, batch, cameras, supervision)}
        parts = in_parts(self._sums, batch, batch_size, self.config.micro_batch_size)
        sums = {name: SampleSums.join([part[name] for part in parts]) for name in parts[0]}
        return over_processes(sums) if self.training else sums

    def weighted(
        self, sums: Mapping[str, SampleSums], logs: Mapping[str, float], batch: Mapping[str, Any]
    ) -> Tensor:
        """Shares (B,) of the samples in the loss: the losses of the stage, weighted and added.

        Args:
            sums: Of each loss, as `measure` gives them.
            logs: Means of the losses.
            batch: Preprocessed.

        Raises:
            ValueError: A loss is not finite.
        """
        parts = [weight * sums[loss].per_sample() for loss, weight in self.config.loss_weights.items()]
        per_sample = torch.stack(parts).sum(dim=0)
        check_losses(self, per_sample, logs, batch)
        if torch.is_grad_enabled() and not per_sample.requires_grad:
            # Nothing to learn from in this batch, but LeRobot calls backward all the same.
            per_sample = per_sample + 0 * trainable_parameters(self)[0].sum()
        return per_sample

    def _check_parts(self, batch_size: int) -> None:
        """Refuse a `micro_batch_size` that does not divide a whole batch; an epoch's last batch may be smaller.

        A run that goes on may begin with such a last batch, so that its second batch decides.
        """
        begins_whole = not self.config.built.steps_done
        decides = begins_whole or self.batch_size > 0
        self.batch_size = max(self.batch_size, batch_size)
        if decides and self.config.micro_batch_size is not None:
            check_divides(self.config.micro_batch_size, self.batch_size)

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

    def update(self) -> None:
        """LeRobot's hook, called after each step of the optimiser, which then waits for the loss.

        Raises:
            ValueError: The step made weights that are not finite, from a finite loss. Nothing of it is saved.
        """
        check_updated(self, (self.backbone, *self._parts_beside_backbone()))

    def autocast(self) -> torch.autocast:
        """The configured precision. LeRobot applies it in training only; applied here, inference computes the same."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def get_optim_params(self) -> list[dict[str, Any]]:
        """The optimiser's groups: the backbone at its own learning rate, and all else; without what is frozen.

        Raises:
            ValueError: The policy was loaded without a dataset, with weights too coarse to learn.
        """
        if self._coarse is not None:
            raise ValueError(
                f"This policy was loaded to {self._use}: its weights are {self._coarse}. To train it, load it with the metadata of the dataset, "
                "as lerobot-train does (LeRobot's make_policy with ds_meta), or with dtype='float32' and no quantization."
            )
        # Adapters that LeRobot loaded, as in a run that is resumed, come in float32, and what they change as it was trained before.
        drop_originals(self)
        self.store_weights()
        config = self.config
        return parameter_groups(
            *self._parts_beside_backbone(),
            backbone=self.backbone,
            lr=config.optimizer_lr,
            lr_backbone=config.optimizer_lr_backbone,
            muon=config.optimizer_name == "muon",
        )

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        """LeRobot's hook. What the policy was built without stays in the file: a generator, a head, layers that only they read."""

        def is_left_out(name: str) -> bool:
            part, _, rest = name.partition(".")
            if part == "generator":
                return model.generator is None
            return part == "backbone" and model.backbone.has_no_place_for(rest)

        dtypes: dict[str, torch.dtype] = {}
        tables = token_tables(model)
        if model._only_used and model.config.dtype == "bfloat16":
            dtypes = dict.fromkeys(autocast_weights(model) | tables, torch.bfloat16)
            model._coarse = "bfloat16"
        load_policy_weights(model, model_file, leave_out=is_left_out, dtypes=dtypes, if_exact=tables)
        return model

    # LoRA

    def wrap_with_peft(self, peft_config: Any = None, peft_cli_overrides: Any = None) -> Any:
        """LeRobot's hook: this policy with adapters, which name the checkpoint that they were trained on, and know its weights.

        Raises:
            ValueError: PEFT could not make the adapter, or it could not be loaded again (`training/lora.py`).
        """
        config = self.config
        check_options(peft_cli_overrides or {}, dict(self.named_modules()))
        base, revision = config.pretrained_path or config.backbone.pretrained, config.pretrained_revision
        self.name_or_path = base
        adapted = super().wrap_with_peft(peft_config, peft_cli_overrides)
        if base is not None:
            # LeRobot loads the base at this revision again.
            adapted.active_peft_config.revision = revision
            config.built.base_fingerprint = fingerprint(base_weights(config, base, {"revision": revision}))
        # Here, since LeRobot asks for no groups where --optimizer.type chooses the optimiser.
        drop_originals(adapted)
        self.store_weights()
        log_adapters(adapted)
        return adapted

    def _get_default_peft_targets(self) -> dict[str, Any]:
        return lora_targets(self, self.config.trainable_parts, self.random_parts)

    def _validate_peft_config(self, peft_config: Any) -> None:
        check_adaptable(self.config.trainable_parts, self.random_parts)
        in_full = peft_config.modules_to_save or ()
        check_saved(self, self.random_parts, self._new_rows(), in_full)
        check_not_frozen(self, self.config.trainable_parts, in_full)

    def _preprocess_peft_cli_overrides(self, cli_overrides: dict, peft_method_type: Any) -> dict:
        overrides = super()._preprocess_peft_cli_overrides(cli_overrides, peft_method_type)
        if peft_method_type == PeftType.LORA and overrides.get("lora_alpha") is None:
            # PEFT's own is 8 for every rank.
            overrides["lora_alpha"] = 2 * (overrides.get("r") or 8)
        return overrides

    def _new_rows(self) -> list[str]:
        """Layers that have rows of tokens which are new to the backbone."""
        return []

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
