"""Building both policies' parts from their configuration, and what both do with them alike."""

from contextlib import nullcontext
from dataclasses import asdict, fields, replace

import torch
from diffusers import AutoencoderDC
from lerobot.policies.pretrained import PreTrainedPolicy
from transformers import Qwen3VLConfig
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints.files import load_weights, stored_weights
from lerobot_gem.checkpoints.formats import Checkpoint, open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import DepthArchitecture, ExpertArchitecture, get_preset
from lerobot_gem.policies.base_configuration import GemPartsConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.training.stages import PRETRAINING


def build_backbone(
    config: GemPartsConfig,
    *,
    weights_follow: bool,
    num_layers: int | None = None,
    language_head: bool = False,
) -> GemBackbone:
    """The backbone, pretrained if the configuration says so; writes its architecture into the configuration.

    Args:
        config: Of the policy.
        weights_follow: A checkpoint's weights will be loaded next: read and initialise none.
        num_layers: Decoder layers to keep; None for all.
        language_head: Be able to predict tokens.
    """
    if config.backbone.pretrained is not None and not weights_follow:
        backbone = load_backbone(
            open_checkpoint(config.backbone.pretrained), num_layers=num_layers, language_head=language_head
        )
    else:
        architecture = config.backbone.architecture or get_preset(config.preset).backbone
        with no_init_weights() if weights_follow else nullcontext():
            backbone = GemBackbone(
                Qwen3VLConfig(**architecture), num_layers=num_layers, language_head=language_head
            )
    config.backbone.architecture = backbone.config.to_dict()
    if config.backbone.gradient_checkpointing:
        backbone.gradient_checkpointing_enable()
    return backbone


def build_generator(
    config: GemPartsConfig, conditioning_dim: int, *, weights_follow: bool
) -> tuple[DepthGenerator, set[str]]:
    """The depth generator; writes its architecture into the configuration.

    Args:
        config: Of the policy.
        conditioning_dim: Width of the backbone's hidden states.
        weights_follow: A checkpoint's weights will be loaded next: read and initialise none.

    Returns:
        The generator, and which of connector, transformer and autoencoder have random weights.

    Raises:
        ValueError: Weights do not fit, or `depth.pretrained` has no generator.
    """
    depth = config.depth
    source = None if weights_follow else _generator_source(config)
    architecture = _depth_architecture(config, source, weights_follow)
    depth.architecture = asdict(architecture)
    with no_init_weights() if weights_follow else nullcontext():
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
        origin = depth.pretrained or config.backbone.pretrained
        if name == "autoencoder" and depth.autoencoder is not None:
            origin = depth.autoencoder
            part = stored_weights(depth.autoencoder, stem="diffusion_pytorch_model")
        if part:
            load_weights(
                getattr(generator, name), part, fault=f"The {name} in {origin} does not fit its configuration"
            )
        else:
            untrained.add(name)
    return generator, untrained


def build_expert(config: GemVLAConfig, conditioning_dim: int, *, weights_follow: bool) -> ActionExpert:
    """The action expert, pretrained if the configuration says so.

    Args:
        config: Of the policy; its features are settled.
        conditioning_dim: Width of the backbone's hidden states.
        weights_follow: A checkpoint's weights will be loaded next: read and initialise none.
    """
    sizes = {field.name: getattr(config.expert, field.name) for field in fields(ExpertArchitecture)}
    with no_init_weights() if weights_follow else nullcontext():
        expert = ActionExpert(
            ExpertArchitecture(**sizes),
            conditioning_dim=conditioning_dim,
            action_dim=config.expert.action_dim,
            state_dim=config.state_feature.shape[0] if config.state_feature else None,
            chunk_size=config.chunk_size,
        )
    if config.expert.pretrained is not None and not weights_follow:
        load_weights(
            expert,
            open_checkpoint(config.expert.pretrained).part("expert"),
            fault=f"The expert in expert.pretrained={config.expert.pretrained!r} does not fit the policy",
            remedy="Its sizes, chunk_size and the sizes of action and state must be those it was trained with.",
        )
    return expert


def stages_behind(config: GemPartsConfig) -> list[str]:
    """Stages that trained the weights which `backbone.pretrained` and `depth.pretrained` start from."""
    source = _generator_source(config)
    if source is None or source.format == "sana":
        return []
    stages = PRETRAINING if source.format == "gem-2b" else source.config.get("stages_done", PRETRAINING)
    # The joint stage trains the backbone, which is another one if the generator comes from elsewhere.
    has_its_backbone = config.depth.pretrained in (None, config.backbone.pretrained)
    return [stage for stage in stages if has_its_backbone or stage != "joint"]


def autocast(policy: PreTrainedPolicy) -> torch.autocast:
    """The configured precision. LeRobot applies it in training only; applied here, inference computes the same."""
    device = next(policy.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=policy.config.dtype == "bfloat16")


def _generator_source(config: GemPartsConfig) -> Checkpoint | None:
    if config.depth.pretrained is not None:
        return open_checkpoint(config.depth.pretrained)
    if config.backbone.pretrained is not None:
        checkpoint = open_checkpoint(config.backbone.pretrained)
        return checkpoint if "generator" in checkpoint.parts else None
    return None


def _depth_architecture(
    config: GemPartsConfig, source: Checkpoint | None, weights_follow: bool
) -> DepthArchitecture:
    depth = config.depth
    if weights_follow:
        if depth.architecture is None:
            raise ValueError(
                f"depth.loss_weight={depth.loss_weight}, but the checkpoint was trained without a depth loss and has no "
                "depth generator: expected --policy.type=gem_vla --policy.backbone.pretrained=<gem checkpoint> instead of "
                "--policy.path, or --policy.depth.loss_weight=0."
            )
        return DepthArchitecture(**depth.architecture)
    architecture = source.depth_architecture if source else get_preset(config.preset).depth
    if depth.autoencoder is None:
        return architecture
    values = AutoencoderDC.load_config(depth.autoencoder)
    values = {name: value for name, value in values.items() if not name.startswith("_")}
    return replace(architecture, autoencoder=values)
