"""From a configuration, and the checkpoints that it names, to the modules of a policy."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from accelerate import init_empty_weights
from diffusers import AutoencoderDC
from huggingface_hub.constants import CONFIG_NAME
from transformers import Qwen3VLConfig
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints.files import load_weights, stored_weights
from lerobot_gem.checkpoints.formats import Checkpoint, check_no_kernels, open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.checkpoints.size_limit import SizeLimit
from lerobot_gem.models.action_expert import ActionExpert, FlowSettings
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import DepthArchitecture, ExpertArchitecture
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.training.stages import PRETRAINING


@contextmanager
def _without_weights(weights_follow: bool) -> Iterator[None]:
    """Modules built within have shapes and no weights, which are on the meta device, if a checkpoint's follow."""
    if not weights_follow:
        yield
        return
    with no_init_weights(), init_empty_weights():
        yield


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
        """Stages that trained the depth generator and its backbone."""
        source = self.generator
        if source is None or source.format == "sana":
            return []
        stages = source.stages_done
        # The joint stage trains the backbone, which is another one if the generator comes from elsewhere.
        return [
            stage
            for stage in (PRETRAINING if stages is None else stages)
            if stage != "joint" or source is self.backbone
        ]


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
    """
    kept: dict[str, Any] = {
        "num_layers": num_layers,
        "language_head": language_head,
        "key_values": key_values,
    }
    source = None if weights_follow else config.sources.backbone
    if source is not None:
        backbone = load_backbone(source, **kept)
    else:
        architecture = config.built.backbone or config.sizes.backbone
        check_no_kernels(architecture, CONFIG_NAME)
        with _without_weights(weights_follow):
            backbone = GemBackbone(Qwen3VLConfig(**architecture), **kept)
    config.built.backbone = backbone.config.to_dict()
    config.settle_images()
    if config.backbone.gradient_checkpointing:
        backbone.gradient_checkpointing_enable()
    return backbone


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
        _without_weights(weights_follow),
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
    return generator, untrained


def build_expert(config: GemVLAConfig, backbone: GemBackbone, *, weights_follow: bool) -> ActionExpert:
    """The action expert, pretrained if the configuration says so.

    Args:
        config: Of the policy; its features are settled.
        backbone: What it reads.
        weights_follow: A checkpoint's weights will be loaded next: read, allocate and initialise none.

    Raises:
        ValueError: The backbone's keys and values don't fit its heads, a layer is none of the backbone's, or the pretrained one's
            weights don't fit the policy.
    """
    conditioning_dim = backbone.hidden_size
    if config.reading == "key_values":
        _check_heads(config.expert_architecture, backbone)
        conditioning_dim = config.expert_architecture.key_value_dim
        depth = backbone.config.get_text_config().num_hidden_layers
        if max(config.conditioning_layers) >= depth:
            raise ValueError(
                f"expert.conditioning_layers={config.conditioning_layers} with expert.conditioning='key_values': expected layers of the "
                f"backbone, 0 to {depth - 1}."
            )
    with _without_weights(weights_follow):
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
                num_inference_steps=config.expert.num_inference_steps,
            ),
            conditioning=config.expert.conditioning,
        )
    source = None if weights_follow else config.sources.expert
    if source is not None:
        weights = source.part("expert")
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
        parts |= {"vision_tower", "merger", "language_model"}
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
    values = AutoencoderDC.load_config(autoencoder)
    values = {name: value for name, value in values.items() if not name.startswith("_")}
    return replace(architecture, autoencoder=values)
