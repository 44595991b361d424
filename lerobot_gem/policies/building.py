"""From a configuration, and the checkpoints that it names, to the modules of a policy."""

import json
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub.constants import CONFIG_NAME
from torch import nn
from transformers import Qwen3VLConfig
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints.files import load_weights, stored_weights
from lerobot_gem.checkpoints.formats import (
    Checkpoint,
    check_no_kernels,
    open_checkpoint,
    read_diffusers_config,
)
from lerobot_gem.checkpoints.loading import load_backbone, without_weights
from lerobot_gem.checkpoints.size_limit import SizeLimit
from lerobot_gem.models.action_expert import ActionExpert, FlowSettings
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import DepthArchitecture, ExpertArchitecture
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.training.processes import is_sharded
from lerobot_gem.training.stages import BACKBONE_PARTS, PRETRAINING, part_of
from lerobot_gem.training.weights import store_weights


@dataclass(frozen=True)
class Sources:
    """The checkpoints that a new policy starts from, each opened once; no weight is in memory.

    Attributes:
        backbone: Of `backbone.pretrained`.
        generator: Of `depth.pretrained`, else that of the backbone if it has a depth generator.
        expert: Of `expert.pretrained`.
    """

    backbone: Checkpoint | None
    generator: Checkpoint | None
    expert: Checkpoint | None

    @classmethod
    def open(cls, config: BaseGemConfig) -> Self:
        """Open what a configuration names."""
        opened: dict[str, Checkpoint] = {}

        def once(pretrained: str | None) -> Checkpoint | None:
            if pretrained is None:
                return None
            if pretrained not in opened:
                opened[pretrained] = open_checkpoint(pretrained)
            return opened[pretrained]

        backbone, generator = once(config.backbone.pretrained), once(config.depth.pretrained)
        if generator is None and backbone is not None and "generator" in backbone.parts:
            generator = backbone
        expert = once(config.expert.pretrained) if isinstance(config, GemVLAConfig) else None
        return cls(backbone, generator, expert)

    @property
    def stages_done(self) -> list[str]:
        """Stages of pre-training behind backbone and depth generator, in order."""
        of_backbone, of_generator = _pretraining(self.backbone), _pretraining(self.generator or self.backbone)
        if of_backbone == of_generator:
            return of_backbone
        # The joint stage trains the backbone, the others a generator that comes from elsewhere.
        return [stage for stage in of_generator if stage != "joint"] + [
            stage for stage in of_backbone if stage == "joint"
        ]


def _pretraining(source: Checkpoint | None) -> list[str]:
    """Stages that pre-trained a checkpoint: all of them where one with a depth generator does not say, such as GEM-2B."""
    if source is None:
        return []
    if source.stages_done is None:
        return list(PRETRAINING) if "generator" in source.parts else []
    return [stage for stage in source.stages_done if stage in PRETRAINING]


def build_backbone(
    config: BaseGemConfig,
    *,
    weights_follow: bool,
    num_layers: int | None = None,
    language_head: bool = False,
    key_values: bool = False,
) -> GemBackbone:
    """The backbone, pretrained if the configuration says so; writes what it is into `config.built`.

    Args:
        config: Of the policy; its cameras are settled.
        weights_follow: A checkpoint's weights will be loaded next: read, allocate and initialise none.
        num_layers: Decoder layers to keep; None for all.
        language_head: Be able to predict tokens.
        key_values: Be able to give keys and values, of the layer behind those that are kept too.

    Raises:
        ValueError: The expert is to read a layer that the backbone does not have.
    """
    kept: dict[str, Any] = {
        "num_layers": num_layers,
        "language_head": language_head,
        "key_values": key_values,
    }
    source = None if weights_follow else config.sources.backbone
    architecture = source.backbone_config if source else config.built.backbone or config.sizes.backbone
    check_no_kernels(architecture, CONFIG_NAME)
    qwen = Qwen3VLConfig.from_dict({**architecture})
    if isinstance(config, GemVLAConfig):
        _check_layers(config, qwen.get_text_config().num_hidden_layers)
    if source is not None:
        backbone = load_backbone(source, **kept, set_types=partial(_set_types, config))
    else:
        with without_weights() if weights_follow else nullcontext():
            backbone = GemBackbone(qwen, **kept)
    config.built.backbone = backbone.config.to_dict()
    config.settle_images()
    if config.backbone.gradient_checkpointing:
        backbone.gradient_checkpointing_enable()
    return backbone


def _check_layers(config: GemVLAConfig, depth: int) -> None:
    """Raise a ValueError if the expert is to read a layer that a backbone of `depth` decoder layers does not have."""
    # State i is what layer i reads; what the last layer writes is a state too.
    last = depth - 1 if config.expert.conditioning == "key_values" else depth
    if max(config.conditioning_layers) > last:
        raise ValueError(
            f"expert.conditioning_layers={config.conditioning_layers} with expert.conditioning={config.expert.conditioning!r}: expected "
            f"layers of the backbone, 0 to {last}."
        )


def _set_types(config: BaseGemConfig, backbone: GemBackbone) -> None:
    """Give a backbone the types that its weights are stored in, so that they are never in memory in wider ones."""
    for name, weight in backbone.named_parameters():
        weight.requires_grad_(part_of(f"backbone.{name}") in config.trainable_parts)
    store_as_configured(config, backbone)


def store_as_configured(config: BaseGemConfig, module: nn.Module) -> None:
    """Store each layer as it is trained or frozen now (`training/weights.py`); FSDP divides float32 instead.

    Args:
        config: Of the policy.
        module: It, or a part of it.
    """
    if not is_sharded():
        trainable, frozen = (getattr(torch, dtype) for dtype in (config.trainable_dtype, config.dtype))
        store_weights(module, trainable=trainable, frozen=frozen)


def build_generator(
    config: BaseGemConfig, conditioning_dim: int, *, weights_follow: bool
) -> tuple[DepthGenerator, set[str]]:
    """The depth generator; writes what it is into `config.built`.

    Args:
        config: Of the policy.
        conditioning_dim: Width of the backbone's hidden states.
        weights_follow: A checkpoint's weights will be loaded next: read, allocate and initialise none.

    Returns:
        The generator, and which of connector, transformer and autoencoder have random weights.

    Raises:
        FileNotFoundError: `depth.autoencoder` is no folder with a configuration.
        ValueError: Weights do not fit, or `depth.pretrained` has no generator.
    """
    source = None if weights_follow else config.sources.generator
    autoencoder = config.depth.autoencoder or (None if source else config.sizes.autoencoder)
    architecture = _depth_architecture(config, source, autoencoder, weights_follow)
    config.built.generator = asdict(architecture)
    stored = {} if source is None else source.weights
    if source is not None and autoencoder is not None:
        stored = stored | stored_weights(autoencoder, stem="diffusion_pytorch_model")
    with (
        without_weights() if weights_follow else nullcontext(),
        no_init_weights() if source else nullcontext(),
        SizeLimit(stored, str(source.path)) if source else nullcontext(),
    ):
        generator = DepthGenerator(architecture, conditioning_dim)
    if config.backbone.gradient_checkpointing:
        generator.gradient_checkpointing_enable()
    if weights_follow:
        return generator, set()

    weights = source.part("generator") if source else {}
    untrained = set()
    for name in ("connector", "transformer", "autoencoder"):
        part = {
            key.removeprefix(f"{name}."): stored
            for key, stored in weights.items()
            if key.startswith(f"{name}.")
        }
        origin = str(source.path) if source else ""
        if name == "autoencoder" and autoencoder is not None:
            origin = str(autoencoder)
            part = stored_weights(autoencoder, stem="diffusion_pytorch_model")
        if part:
            load_weights(
                getattr(generator, name), part, fault=f"The {name} in {origin} does not fit its configuration"
            )
        else:
            untrained.add(name)
            if source:
                _initialise(getattr(generator, name))
    return generator, untrained


def _initialise(part: nn.Module) -> None:
    """Start the weights of a part of the generator that was built without (`no_init_weights`), as diffusers' layers do."""
    layer: Any
    for layer in part.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()


def build_expert(config: GemVLAConfig, backbone: GemBackbone, *, weights_follow: bool) -> ActionExpert:
    """The action expert, pretrained if the configuration says so.

    Args:
        config: Of the policy; its features are settled.
        backbone: What it reads.
        weights_follow: A checkpoint's weights will be loaded next: read, allocate and initialise none.

    Raises:
        ValueError: The backbone's keys and values don't fit its heads, or the pretrained one's weights don't fit the policy.
    """
    conditioning_dim = backbone.hidden_size
    if config.reading == "key_values":
        _check_heads(config.expert_architecture, backbone)
        conditioning_dim = config.expert_architecture.key_value_dim
    source = None if weights_follow else config.sources.expert
    with without_weights() if weights_follow or source else nullcontext():
        expert = ActionExpert(
            config.expert_architecture,
            conditioning_dim=conditioning_dim,
            action_dim=config.built.action_dim,
            state_dim=config.state_feature.shape[0] if config.state_feature else None,
            chunk_size=config.chunk_size,
            flow=FlowSettings(
                time_distribution=config.expert.time_distribution,
                draws=config.expert.flow_samples,
                state_noise_snr=config.expert.state_noise_snr,
            ),
            conditioning=config.expert.conditioning,
        )
    if source is not None:
        weights = source.part("expert")
        source.check_expert()
        if source.expert_conditioning != config.expert.conditioning:
            raise ValueError(
                f"expert.pretrained={config.expert.pretrained!r} is an expert that reads {source.expert_conditioning!r}: expected "
                f"--policy.expert.conditioning={source.expert_conditioning}, or no expert.pretrained. Released experts read states."
            )
        load_weights(
            expert,
            weights,
            fault=f"The expert in expert.pretrained={config.expert.pretrained!r} does not fit the policy",
            remedy="Its sizes, chunk_size and the sizes of action and state must be those it was trained with.",
            dtypes={},
        )
    return expert


def _check_heads(expert: ExpertArchitecture, backbone: GemBackbone) -> None:
    """Raise a ValueError unless the expert can read the backbone's keys and values."""
    text = backbone.config.get_text_config()
    heads, size = text.num_key_value_heads, text.head_dim
    if (expert.num_kv_heads, expert.head_size) != (heads, size):
        queries = heads * max(1, round(expert.hidden_size / size / heads))
        fitting = {"hidden_size": queries * size, "num_heads": queries, "num_kv_heads": heads}
        changes = {name: value for name, value in fitting.items() if value != getattr(expert, name)}
        raise ValueError(
            f"expert.conditioning='key_values' with an expert of {expert.num_kv_heads} key and value heads of {expert.head_size}: the "
            f"backbone has {heads} of {size}, and the expert reads them as they are. Expected as many of the same size: "
            f"--policy.expert.architecture='{json.dumps(changes)}', or --policy.expert.conditioning=states."
        )


def random_parts(config: BaseGemConfig, untrained: Collection[str]) -> frozenset[str]:
    """Parts (`stages.PARTS`) of a new policy whose weights are random.

    Args:
        config: Of the policy.
        untrained: Those of its depth generator.
    """
    parts = set(untrained)
    if config.sources.backbone is None:
        parts |= set(BACKBONE_PARTS)
    if isinstance(config, GemVLAConfig) and config.sources.expert is None:
        parts.add("expert")
    return frozenset(parts)


def _depth_architecture(
    config: BaseGemConfig, source: Checkpoint | None, autoencoder: str | Path | None, weights_follow: bool
) -> DepthArchitecture:
    if weights_follow:
        if not config.built.generator:
            raise ValueError(
                f"depth.loss_weight={config.depth_loss_weight}, but the checkpoint was trained without a depth loss and has no "
                "depth generator: expected --policy.type=gem_vla --policy.backbone.pretrained=<gem checkpoint> instead of "
                "--policy.path, or --policy.depth.loss_weight=0."
            )
        return DepthArchitecture(**config.built.generator)
    architecture = source.depth_architecture if source else config.sizes.depth
    if autoencoder is None:
        return architecture
    if not (Path(autoencoder) / CONFIG_NAME).is_file():
        raise FileNotFoundError(
            f"depth.autoencoder={str(autoencoder)!r} is no folder with a {CONFIG_NAME}: expected one that diffusers' "
            "AutoencoderDC.save_pretrained wrote. Give its path, or leave the option out for the autoencoder of depth.pretrained."
        )
    return replace(architecture, autoencoder=read_diffusers_config(Path(autoencoder), "AutoencoderDC"))
