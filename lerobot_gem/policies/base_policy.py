"""What both policies do alike: loading, precision, freezing, the optimiser's groups."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from lerobot_gem.checkpoints.adapter_files import check_adapter_files
from lerobot_gem.checkpoints.files import StoredTensor, stored_policy_weights
from lerobot_gem.checkpoints.processor_files import check_processor_files
from lerobot_gem.checkpoints.size_limit import SizeLimit
from lerobot_gem.inference.control_rate import match_rate
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.card_pictures import write_card_pictures
from lerobot_gem.policies.depth_loss import DRAWN, depth_losses, draw_images
from lerobot_gem.policies.destination import forget_destination
from lerobot_gem.policies.losses import SampleSums
from lerobot_gem.policies.model_card import make_model_card
from lerobot_gem.processing.finite import check_finite, first_broken_parameter, is_finite
from lerobot_gem.processing.steps import OBS_PIXEL_VALUES, OBS_SHOWN
from lerobot_gem.training.micro_batches import in_parts
from lerobot_gem.training.trainable import freeze_all_but, parameter_groups, trainable_parameters
from lerobot_gem.training.weights import is_sharded, store_weights

_STATISTICS = (
    "It was finite before it was normalised, so the statistics of the processor are not: train on a dataset that "
    "lerobot-gem-check passes."
)

# Where on the Hub a checkpoint is; not `force_download`, which would fetch the weights again for each other file.
_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only")


class BaseGemPolicy(PreTrainedPolicy):
    """A backbone, and a depth generator while it teaches.

    Attributes:
        config: Of the policy.
        backbone: The vision-language model.
        generator: The depth generator; None where no depth is learned.
    """

    config_class = BaseGemConfig
    name = "gem_base"

    config: BaseGemConfig
    backbone: GemBackbone
    generator: DepthGenerator | None

    _card_pictures: Sequence[str] = ()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a checkpoint that LeRobot saved; needs no file but those in it.

        Raises:
            ValueError: Weights are missing, unexpected, of another shape, or cut short; the error names them. Or the
                configuration has other cameras than the checkpoint, whose processor would go on with its own. Or a file of the
                checkpoint could run code, or asks for sizes that its weights do not have (docs/security.md).
        """
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name)}
        check_processor_files(pretrained_name_or_path, **hub)
        if (config := kwargs.get("config")) is not None:
            # It may have other cameras by the command line, and version 0.1 did not write what they were built as.
            stored: Any = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub)
            config.built.images = stored.built.images
            if config.use_peft and config.pretrained_path:  # an adapter's folder, with processors of its own
                check_adapter_files(config.pretrained_path, revision=config.pretrained_revision)
                check_processor_files(config.pretrained_path, revision=config.pretrained_revision)
            forget_destination(config)
            if kwargs.get("dataset_meta") is None:
                match_rate(config, config.built.fps)
            else:
                config.record_base(pretrained_name_or_path, kwargs.get("revision"))
        with SizeLimit(_weights_at(pretrained_name_or_path, hub), f"{pretrained_name_or_path}/{CONFIG_NAME}"):
            return super().from_pretrained(pretrained_name_or_path, weights_follow=True, **kwargs)

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

    def measure(self, batch: Mapping[str, Any], batch_size: int) -> dict[str, SampleSums]:
        """The losses of a batch and what else is logged, in parts of `micro_batch_size` samples.

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
        return {name: SampleSums.join([part[name] for part in parts]) for name in parts[0]}

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
