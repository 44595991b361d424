"""The architectures by name, as data.

| preset | backbone | depth generator | action expert |
|---|---|---|---|
| `tiny` | a Qwen3-VL of about 1.5 M parameters for 96 to 128 px images; learns from scratch on CPUs | 128 wide, 4 blocks | 128 wide, 3 blocks |
| `2b` | Qwen/Qwen3-VL-2B-Instruct | SANA 1.5 1.6B, DC-AE f32c32 | the released GEM-VLA expert |
| `8b` | Qwen/Qwen3-VL-8B-Instruct | the same | the same |

Sources: the `config.json` of the two Qwen repositories (the 2B one checked by its 2,127.5 M parameters, see
tests), of SANA1.5_1.6B_1024px_diffusers and dc-ae-f32c32-sana-1.1 (checked by 1,604.6 M parameters in 476 tensors and
312.3 M in 375), the release's `demo.yaml` for the expert. The release has no 8B policy: `8b` pairs the paper's 8B
backbone with the released generator and expert, whose first layers take any backbone width. `tiny` is this project's
own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# Named choices of the models, here so that configurations can list them without loading a model.
StateConvention = Literal["layer_inputs", "hidden_states"]  # see models/conditioning.py
Reading = Literal[StateConvention, "key_values"]  # the same
ExpertConditioning = Literal["states", "key_values"]  # the same
TimeDistribution = Literal["logit_normal", "uniform", "beta"]  # see models/action_expert.py


@dataclass(frozen=True)
class ExpertArchitecture:
    """Sizes of the action expert; the defaults are those of the release (`demo.yaml`).

    Args:
        hidden_size: Width of the action tokens.
        depth: Number of blocks; each reads one conditioning state of the backbone.
        num_heads: Query heads; `hidden_size / num_heads` is the head size.
        num_kv_heads: Key and value heads, a divisor of `num_heads`.
        num_register_tokens: Learned tokens appended to the action tokens; their outputs are dropped.
        norm_eps: Epsilon of every RMSNorm.
        multiple_of: The feed-forward width is rounded up to a multiple of this.
        ffn_dim_multiplier: Factor on the feed-forward width before rounding; None for 1.
    """

    hidden_size: int
    depth: int
    num_heads: int
    num_kv_heads: int
    num_register_tokens: int = 4
    norm_eps: float = 1e-5
    multiple_of: int = 256
    ffn_dim_multiplier: float | None = None

    def __post_init__(self) -> None:
        least = dict.fromkeys(("hidden_size", "depth", "num_heads", "num_kv_heads", "multiple_of"), 1)
        for name, bound in (least | {"num_register_tokens": 0}).items():
            value = getattr(self, name)
            if type(value) is not int or value < bound:
                raise ValueError(
                    f"{name}={value!r} of the action expert: expected a whole number, at least {bound}."
                )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} of the action expert must be a multiple of num_heads={self.num_heads}."
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} of the action expert must be a multiple of num_kv_heads={self.num_kv_heads}."
            )

    @property
    def head_size(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_heads

    @property
    def key_value_dim(self) -> int:
        """Numbers in the keys and values of one token, of all heads."""
        return 2 * self.num_kv_heads * self.head_size

    @property
    def feed_forward_size(self) -> int:
        """Width inside the gated feed-forward layers: 8/3 of the hidden size, scaled, rounded up."""
        size = int(2 * (4 * self.hidden_size) / 3)
        if self.ffn_dim_multiplier is not None:
            size = int(self.ffn_dim_multiplier * size)
        return self.multiple_of * -(-size // self.multiple_of)


@dataclass(frozen=True)
class DepthArchitecture:
    """Sizes of the depth generator, in the words of diffusers; plain JSON, so that a checkpoint's configuration can carry them.

    Args:
        transformer: Keyword arguments of `SanaTransformer2DModel`; the connector is as wide as its `caption_channels`.
        autoencoder: Keyword arguments of `AutoencoderDC`.
        scheduler: Keyword arguments of `FlowMatchEulerDiscreteScheduler`; none is what the release computes with.

    Raises:
        ValueError: Transformer and autoencoder have different numbers of latent channels.
    """

    transformer: dict[str, Any]
    autoencoder: dict[str, Any]
    scheduler: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        channels = {
            "the transformer's in_channels": self.transformer["in_channels"],
            "its out_channels": self.transformer["out_channels"],
            "the autoencoder's latent_channels": self.autoencoder["latent_channels"],
        }
        if len(set(channels.values())) > 1:
            named = ", ".join(f"{name} is {value}" for name, value in channels.items())
            raise ValueError(
                f"The depth generator's parts don't fit: {named}; expected one number of latent channels."
            )


@dataclass(frozen=True)
class Preset:
    """One complete architecture.

    Args:
        backbone: Keyword arguments of `transformers.Qwen3VLConfig`.
        expert: Sizes of the action expert.
        depth: Sizes of the depth generator.
        hub_id: Where the backbone's pretrained weights are; None if it has none.
        autoencoder: Folder of the depth generator's autoencoder in this package, in diffusers' format; None where it comes
            with the generator's pretrained weights.
        min_pixels: Smallest image area, in pixels, that the vision tower is given.
        max_pixels: Largest image area.
        max_depth_side: Longest side, in pixels, of the depth pictures that the generator learns.
    """

    backbone: dict = field(repr=False)
    expert: ExpertArchitecture
    depth: DepthArchitecture = field(repr=False)
    hub_id: str | None = None
    autoencoder: Path | None = None
    # The release's values for VLM training (docs/reference/configuration.md).
    min_pixels: int = 25_088
    max_pixels: int = 2_359_296
    max_depth_side: int = 448


def _qwen3_vl(text: dict, vision: dict, *, tie_word_embeddings: bool) -> dict:
    """Fill in what all Qwen3-VL models share."""
    return {
        "text_config": {
            "vocab_size": 151_936,
            "head_dim": 128,
            "max_position_embeddings": 262_144,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": tie_word_embeddings,
            **text,
        },
        "vision_config": {
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": 2304,
            "num_heads": 16,
            "out_hidden_size": text["hidden_size"],
            **vision,
        },
        "image_token_id": 151_655,
        "video_token_id": 151_656,
        "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653,
        "tie_word_embeddings": tie_word_embeddings,
    }


def _autoencoder(
    channels: list[int], *, layers: tuple[list[int], list[int]], **values: Any
) -> dict[str, Any]:
    """Fill in what the DC-AEs share that SANA 1.5 and `tiny` use; `layers` are the encoder's and the decoder's."""
    blocks = ["ResBlock"] * 3 + ["EfficientViTBlock"] * (len(channels) - 3)
    scales: list[list[int]] = [[] if block == "ResBlock" else [5] for block in blocks]
    return {
        "in_channels": 3,
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": channels,
        "decoder_block_out_channels": channels,
        "encoder_layers_per_block": layers[0],
        "decoder_layers_per_block": layers[1],
        "encoder_qkv_multiscales": scales,
        "decoder_qkv_multiscales": scales,
        "upsample_block_type": "interpolate",
        "downsample_block_type": "Conv",
        "decoder_norm_types": "rms_norm",
        "decoder_act_fns": "silu",
        **values,
    }


# What all the generators' transformers share; SANA has no positions but those that its convolutions see.
_SANA: dict[str, Any] = {
    "mlp_ratio": 2.5,
    "dropout": 0.0,
    "attention_bias": False,
    "sample_size": 32,
    "patch_size": 1,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "guidance_embeds": False,
    "qk_norm": "rms_norm_across_heads",
}

_RELEASED_GENERATOR = DepthArchitecture(
    transformer={
        "in_channels": 32,
        "out_channels": 32,
        "num_attention_heads": 70,
        "attention_head_dim": 32,
        "num_layers": 20,
        "num_cross_attention_heads": 20,
        "cross_attention_head_dim": 112,
        "cross_attention_dim": 2240,
        "caption_channels": 2304,
        **_SANA,
    },
    autoencoder=_autoencoder(
        [128, 256, 512, 512, 1024, 1024],
        layers=([2, 2, 2, 3, 3, 3], [3, 3, 3, 3, 3, 3]),
        latent_channels=32,
        attention_head_dim=32,
        scaling_factor=0.41407,
    ),
)

_RELEASED_EXPERT = ExpertArchitecture(hidden_size=1024, depth=14, num_heads=8, num_kv_heads=4)

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        backbone={
            "text_config": {
                "vocab_size": 1024,
                "hidden_size": 128,
                "intermediate_size": 256,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "max_position_embeddings": 4096,
                # The released models are fine-tuned, never started from Qwen's 0.02: at this width it would
                # make every residual branch start nearly silent.
                "initializer_range": 0.06,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000,
                    "mrope_section": [6, 5, 5],
                    "mrope_interleaved": True,
                },
                "tie_word_embeddings": True,
            },
            "vision_config": {
                "depth": 3,
                "hidden_size": 96,
                "intermediate_size": 288,
                "num_heads": 3,
                "patch_size": 16,
                # Qwen's 2 is for videos; of a still image it would read the same pixels twice.
                "temporal_patch_size": 1,
                "spatial_merge_size": 2,
                "out_hidden_size": 128,
                # 8 x 8, the patch grid of a 128 px image.
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
                "initializer_range": 0.06,
            },
            "vision_start_token_id": 1,
            "vision_end_token_id": 2,
            "image_token_id": 3,
            "video_token_id": 4,
            "tie_word_embeddings": True,
        },
        expert=ExpertArchitecture(hidden_size=128, depth=3, num_heads=4, num_kv_heads=2, multiple_of=32),
        depth=DepthArchitecture(
            transformer={
                "in_channels": 16,
                "out_channels": 16,
                "num_attention_heads": 8,
                "attention_head_dim": 16,
                "num_layers": 4,
                "num_cross_attention_heads": 4,
                "cross_attention_head_dim": 32,
                "cross_attention_dim": 128,
                "caption_channels": 128,
                **_SANA,
            },
            autoencoder=_autoencoder(
                [16, 16, 32, 64, 64],
                # Nothing at full resolution, as in DC-AE's own f32 models for ImageNet: half the time.
                layers=([0, 1, 1, 1, 1], [0, 1, 1, 1, 1]),
                latent_channels=16,
                attention_head_dim=16,
                scaling_factor=1.0,
            ),
        ),
        autoencoder=Path(__file__).parent / "tiny_autoencoder",
        min_pixels=64 * 64,
        max_pixels=128 * 128,
        max_depth_side=64,
    ),
    "2b": Preset(
        backbone=_qwen3_vl(
            {
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
            },
            {
                "depth": 24,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "deepstack_visual_indexes": [5, 11, 17],
            },
            tie_word_embeddings=True,
        ),
        expert=_RELEASED_EXPERT,
        depth=_RELEASED_GENERATOR,
        hub_id="Qwen/Qwen3-VL-2B-Instruct",
    ),
    "8b": Preset(
        backbone=_qwen3_vl(
            {
                "hidden_size": 4096,
                "intermediate_size": 12_288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
            },
            {
                "depth": 27,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "deepstack_visual_indexes": [8, 16, 24],
            },
            tie_word_embeddings=False,
        ),
        expert=_RELEASED_EXPERT,
        depth=_RELEASED_GENERATOR,
        hub_id="Qwen/Qwen3-VL-8B-Instruct",
    ),
}


def get_preset(name: str) -> Preset:
    """Return the architecture called `name`.

    Raises:
        ValueError: No preset has that name.
    """
    if name not in PRESETS:
        raise ValueError(f"Unknown preset {name!r}; choose one of {', '.join(map(repr, PRESETS))}.")
    return PRESETS[name]
