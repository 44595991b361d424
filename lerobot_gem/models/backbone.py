"""The backbone: Qwen3-VL, read layer by layer and no further than asked.

The action expert conditions on hidden states of early decoder layers. transformers' own forward always runs every
layer, and what it calls `hidden_states` changed between its major versions; so this module runs transformers' layers
itself and names what it returns (`conditioning.py`).

The depth generator and the language head read the final states, after the final norm, whatever the convention.
"""

import copy
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor, nn
from transformers import Cache, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLModel
from transformers.masking_utils import create_causal_mask

from lerobot_gem.models.decoder_layers import KeyValueLayer
from lerobot_gem.models.presets import Reading
from lerobot_gem.models.vision_tower import ImagePositions, VisionTower

_DECODER_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.(.+)")


class PreparedPrompt(NamedTuple):
    """What prompts and the sizes of their images decide, whatever the images show.

    Args:
        embeddings: (B, L, D) of the tokens; what stands at image tokens is replaced.
        image_tokens: (N,), where the image tokens are in the B * L tokens.
        positions: (3, B, L), rotary ones in time, height and width.
        cos: (B, L, head_size), of the rotary positions.
        sin: Of the same shape.
        causal_mask: (B, 1, L, L); None where all tokens are real, and attention to all tokens before is all there is to it.
        images: Positions in the images.
    """

    embeddings: Tensor
    image_tokens: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor
    causal_mask: Tensor | None
    images: ImagePositions


class ImageFeatures(NamedTuple):
    """What the vision tower saw.

    Args:
        tokens: (N, D), which take the place of the image tokens.
        deepstack: (N, D) each, added to the states at image tokens after the first decoder layers.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...]


class GemBackbone(nn.Module):
    """Qwen3-VL that returns the hidden states asked for and runs nothing beyond the last of them.

    Args:
        config: Of the whole model, also when it is truncated.
        num_layers: Decoder layers to keep; None for all. A truncated backbone has no final norm, since nothing could
            reach it.
        language_head: Be able to predict tokens. A head that is tied to the embeddings has no weights of its own.
        key_values: Be able to give keys and values: of the layers that are kept, and of the next one, of which nothing else is
            kept.

    Raises:
        ValueError: `num_layers` is not between 1 and the depth of `config` (0 and one less with `key_values`), or is less than
            the depth with a language head.
    """

    def __init__(
        self,
        config: Qwen3VLConfig,
        *,
        num_layers: int | None = None,
        language_head: bool = False,
        key_values: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        # Kept here, since sharded training wraps the layers in others.
        self._gives_key_values = key_values
        self._ends_cut = key_values and num_layers is not None
        # Any: transformers annotates tensors as LongTensor and the like, which no operation returns.
        self.model: Any = Qwen3VLModel(_truncated(config, num_layers, with_next=self._ends_cut))
        if key_values:
            KeyValueLayer.replace(self.model.language_model.layers)
        if self._ends_cut:
            self.model.language_model.layers[-1].keep_projections_alone()
        VisionTower.replace(self.model.visual)
        _init_positions(self.model.visual.pos_embed.weight)
        self.lm_head: nn.Linear | None = None
        self._drop_unreachable_norm()
        if language_head:
            self._check_complete("predictions of tokens")
            if not config.tie_word_embeddings:
                self.lm_head = nn.Linear(self.hidden_size, config.get_text_config().vocab_size, bias=False)
                # The rule that transformers' own initialisation follows for this layer.
                nn.init.normal_(self.lm_head.weight, std=config.get_text_config().initializer_range)

    def has_no_place_for(self, name: str) -> bool:
        """Whether a weight of the whole model is one that this backbone leaves out on purpose."""
        if name.startswith("lm_head."):
            return self.lm_head is None
        if name == "model.language_model.norm.weight":
            return isinstance(self.model.language_model.norm, nn.Identity)
        layer = _DECODER_LAYER.match(name)
        if layer is None or int(layer[1]) < self.num_layers:
            return False
        cut = self.model.language_model.layers[self.num_layers :]
        return int(layer[1]) > self.num_layers or not cut or layer[2] not in cut[0].state_dict()

    @property
    def vision_tower(self) -> nn.Module:
        """The vision transformer with its patch mergers."""
        return self.model.visual

    @property
    def language_model(self) -> nn.Module:
        """The decoder with its token embeddings."""
        return self.model.language_model

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        return self.config.get_text_config().hidden_size

    @property
    def num_layers(self) -> int:
        """Decoder layers that are kept whole; states 0 to `num_layers` can be asked for."""
        return len(self.model.language_model.layers) - int(self._ends_cut)

    @property
    def image_token_id(self) -> int:
        """Token that image features replace."""
        return self.config.image_token_id

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers of both towers in the backward pass instead of keeping their activations."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        image_grid_thw: Tensor,
        *,
        layers: Sequence[int],
        convention: Reading = "layer_inputs",
    ) -> Tensor:
        """Return the hidden states of some layers, or their keys and values.

        Args:
            input_ids: (B, L), one image token per merged patch.
            attention_mask: (B, L), 1 where a token is real; rows of unequal length are padded on the left.
            pixel_values: (P, patch_dim), the patches of all images, as transformers' image processor makes them.
            image_grid_thw: (N, 3), patches of each image in time, height and width.
            layers: Which, each 0 to `num_layers`, in any order.
            convention: What is read: states of one convention, or "key_values"; see `conditioning.py`.

        Returns:
            (B, len(layers), L, D), or keys and values as `KeyValue.side_by_side` lays them. Values at padded positions mean
            nothing.

        Raises:
            ValueError: A layer out of range, no layer, unknown convention, keys and values of a backbone that was built without, or
                image tokens that don't match the image features.
        """
        self._check_request(layers, convention)
        prompt = self.prepare(input_ids, attention_mask, image_grid_thw)
        return self.read(prompt, self.see(pixel_values, prompt.images), layers=layers, convention=convention)

    def forward_with_final(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        image_grid_thw: Tensor,
        *,
        layers: Sequence[int],
        convention: Reading = "layer_inputs",
    ) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, and the final states, from one pass through all layers.

        Args and errors are those of `forward`.

        Returns:
            (B, len(layers), L, D) and the final, normed states (B, L, D).

        Raises:
            ValueError: The backbone is truncated.
        """
        self._check_request(layers, convention)
        self._check_complete("final states")
        prompt = self.prepare(input_ids, attention_mask, image_grid_thw)
        seen = self.see(pixel_values, prompt.images)
        states, last = self._collect(
            prompt, seen, layers=layers, convention=convention, depth=self.num_layers
        )
        return states, self.model.language_model.norm(last)

    def final_states(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, image_grid_thw: Tensor
    ) -> Tensor:
        """Return the final, normed hidden states (B, L, D), which depth generator and language head read.

        Args are those of `forward`; rows may be padded on either side.

        Raises:
            ValueError: The backbone is truncated.
        """
        self._check_complete("final states")
        inputs = input_ids, attention_mask, pixel_values, image_grid_thw
        return self.forward(*inputs, layers=[self.num_layers], convention="hidden_states")[:, 0]

    @property
    def head_weight(self) -> Tensor:
        """Weight (V, D) of the language head, one row for each token.

        Raises:
            ValueError: The backbone was built without a language head.
        """
        if self.lm_head is not None:
            return self.lm_head.weight
        if not self.config.tie_word_embeddings:
            raise ValueError(
                "This backbone was built without a language head; build it with language_head=True."
            )
        return self.model.get_input_embeddings().weight

    @property
    def token_layers(self) -> list[str]:
        """Names of the layers that have a row for each token: the embeddings, and a language head that is not tied to them."""
        return ["model.language_model.embed_tokens", *(["lm_head"] if self.lm_head is not None else [])]

    def logits(self, states: Tensor) -> Tensor:
        """Scores of the next token (..., V) after final states (..., D).

        Raises:
            ValueError: The backbone was built without a language head.
        """
        return F.linear(states, self.head_weight) if self.lm_head is None else self.lm_head(states)

    def vision_spans(self, states: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cut out the states of each image: those strictly between vision start and vision end.

        Args:
            states: (B, L, D).
            input_ids: (B, L).

        Returns:
            (N, S, D), the N images of all samples in order, padded with zeros to the longest; (N, S), True at tokens.
        """
        started = (input_ids == self.config.vision_start_token_id).cumsum(dim=1)
        ended = (input_ids == self.config.vision_end_token_id).cumsum(dim=1)
        inside = (started > ended) & (input_ids != self.config.vision_start_token_id)
        images_before = started[:, -1].cumsum(dim=0) - started[:, -1]
        image = (images_before[:, None] + started - 1)[inside]
        lengths = torch.bincount(image, minlength=int(started[:, -1].sum()))
        mask = torch.arange(int(lengths.max()), device=states.device) < lengths[:, None]
        spans = states.new_zeros(*mask.shape, states.shape[-1])
        # Row-major order of `mask` is the order in which images and their tokens follow each other in the batch.
        return spans.masked_scatter(mask[..., None], states[inside]), mask

    def for_generation(self) -> Any:
        """The same weights as transformers' `Qwen3VLForConditionalGeneration`, whose `generate` writes answers.

        Raises:
            ValueError: The backbone is truncated, or was built without a language head.
        """
        self._check_complete("answers")
        with torch.device("meta"):
            model: Any = Qwen3VLForConditionalGeneration(self.config)
        model.model = self.model
        if self.lm_head is not None:
            model.lm_head = self.lm_head
        elif self.config.tie_word_embeddings:
            model.lm_head.weight = self.model.get_input_embeddings().weight
        else:
            raise ValueError(
                "This backbone was built without a language head; build it with language_head=True."
            )
        return model

    def prepare(self, input_ids: Tensor, attention_mask: Tensor, image_grid_thw: Tensor) -> PreparedPrompt:
        """Compute what depends on prompts and on the sizes of their images alone; waits for the device.

        Args are those of `forward`.

        Raises:
            ValueError: The image tokens are not those of images of these sizes.
        """
        language = self.model.language_model
        # A table whose numbers all are bfloat16's may be stored so; the states are of the type that the norms have.
        dtype = language.layers[0].input_layernorm.weight.dtype
        embeddings = self.model.get_input_embeddings()(input_ids).to(dtype)
        is_image = input_ids == self.image_token_id
        image_tokens = is_image.flatten().nonzero().flatten()
        images = self.model.visual.positions(image_grid_thw)
        expected = sum(images.lengths) // self.config.vision_config.spatial_merge_size**2
        if len(image_tokens) != expected:
            raise ValueError(
                f"The {len(image_tokens)} image tokens of the prompts do not match the images, which have {expected}: expected "
                "one for each merged patch. Make prompts and patches with the policy's own processor."
            )
        positions, _ = self.model.get_rope_index(
            input_ids,
            mm_token_type_ids=is_image.int(),
            image_grid_thw=image_grid_thw,
            attention_mask=attention_mask,
        )
        cos, sin = language.rotary_emb(embeddings, positions)
        causal_mask = create_causal_mask(
            config=language.config,
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            past_key_values=None,
        )
        return PreparedPrompt(embeddings, image_tokens, positions, cos, sin, causal_mask, images)

    def see(self, pixel_values: Tensor, images: ImagePositions) -> ImageFeatures:
        """Run the vision tower.

        Args:
            pixel_values: (P, patch_dim), the patches of all images.
            images: Of the prepared prompt.

        Raises:
            ValueError: These are not the patches of such images.
        """
        if len(pixel_values) != sum(images.lengths):
            raise ValueError(
                f"The {len(pixel_values)} patches do not match the sizes of the images, which have {sum(images.lengths)}. Make "
                "patches and sizes with the policy's own processor."
            )
        seen = self.model.visual(pixel_values, positions=images)
        return ImageFeatures(seen.pooler_output, tuple(seen.deepstack_features))

    def read(
        self,
        prompt: PreparedPrompt,
        seen: ImageFeatures,
        *,
        layers: Sequence[int],
        convention: Reading = "layer_inputs",
        cache: Cache | None = None,
    ) -> Tensor:
        """Run the decoder as far as is asked for; arguments and result are otherwise those of `forward`.

        An empty `cache` keeps the layers' keys and values, for what is written behind the prompts; where states are asked for.
        """
        depth = max(layers)
        return self._collect(prompt, seen, layers=layers, convention=convention, depth=depth, cache=cache)[0]

    def _collect(
        self,
        prompt: PreparedPrompt,
        seen: ImageFeatures,
        *,
        layers: Sequence[int],
        convention: Reading,
        depth: int,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run `depth` decoder layers; what was asked for (B, len(layers), L, D), and what a next layer would read."""
        found: dict[int, Tensor] = {}
        of_keys = layers if convention == "key_values" else ()
        shared = {
            "attention_mask": prompt.causal_mask,
            "position_ids": None,
            "position_embeddings": (prompt.cos, prompt.sin),
        }
        x = output = _placed(seen.tokens, prompt.image_tokens, prompt.embeddings)
        nothing = torch.zeros_like(x)
        decoder = self.model.language_model.layers
        for index in range(depth):
            if index in of_keys:
                output, key_value = decoder[index](x, gives="both", **shared)
                found[index] = key_value.side_by_side()
            else:
                if index in layers:
                    found[index] = self._state(index, x, output, convention)
                output = decoder[index](x, past_key_values=cache, **shared)
            x = output
            if index < len(seen.deepstack):
                x = output + _placed(seen.deepstack[index], prompt.image_tokens, nothing)
        if depth in of_keys:
            found[depth] = decoder[depth](x, gives="key_value", **shared).side_by_side()
        elif depth in layers:
            found[depth] = self._state(depth, x, output, convention)
        return torch.stack([found[index] for index in layers], dim=1), x

    def _state(self, index: int, x: Tensor, output: Tensor, convention: Reading) -> Tensor:
        if convention == "layer_inputs":
            return x
        if index == self.config.get_text_config().num_hidden_layers:
            return self.model.language_model.norm(x)
        return output

    @property
    def is_complete(self) -> bool:
        """Whether all decoder layers are kept, so that there are final states."""
        return self.num_layers == self.config.get_text_config().num_hidden_layers

    def _check_complete(self, purpose: str) -> None:
        depth = self.config.get_text_config().num_hidden_layers
        if not self.is_complete:
            raise ValueError(
                f"{purpose.capitalize()} need all {depth} decoder layers; this backbone keeps {self.num_layers}."
            )

    def _check_request(self, layers: Sequence[int], convention: str) -> None:
        if convention not in get_args(Reading):
            raise ValueError(
                f"Unknown convention {convention!r} of hidden states; "
                f"choose one of {', '.join(map(repr, get_args(Reading)))}."
            )
        if not layers:
            raise ValueError("No layer asked for; name at least one.")
        last = self.num_layers
        if convention == "key_values":
            if not self._gives_key_values:
                raise ValueError(
                    "This backbone was built to give states alone; build it with key_values=True."
                )
            last = len(self.model.language_model.layers) - 1
        for index in layers:
            if not 0 <= index <= last:
                raise ValueError(
                    f"Layer {index} is past this backbone of {self.num_layers} decoder layers; "
                    f"ask for layers from 0 to {last}."
                )

    def _drop_unreachable_norm(self) -> None:
        if self.num_layers < self.config.get_text_config().num_hidden_layers:
            self.model.language_model.norm = nn.Identity()


def _placed(features: Tensor, image_tokens: Tensor, where: Tensor) -> Tensor:
    """The tensor (B, L, D) with image features (N, D) in the place of its image tokens."""
    flat = where.flatten(0, 1).index_copy(0, image_tokens, features.to(where.dtype))
    return flat.view(where.shape)


def _init_positions(weight: Tensor) -> None:
    """Start a fresh tower's position embeddings (N, D), N a square number, as sines and cosines of row and column.

    transformers starts them as small noise, which the contents of the patches drown and which says nothing of what is next
    to what: a tower from scratch then takes long to tell where things are (results/demo/README.md).
    """
    side = int(len(weight) ** 0.5)
    table = get_2d_sincos_pos_embed(weight.shape[1], side, base_size=side, output_type="pt")
    with torch.no_grad():
        weight.copy_(table)


def _truncated(config: Qwen3VLConfig, num_layers: int | None, *, with_next: bool) -> Qwen3VLConfig:
    depth = config.get_text_config().num_hidden_layers
    config = copy.deepcopy(config)
    if num_layers is None:
        return config
    if with_next and not 0 <= num_layers < depth:
        raise ValueError(
            f"num_layers={num_layers} must be between 0 and {depth - 1}, since the next of the backbone's {depth} decoder layers gives "
            "its keys and values too."
        )
    if not with_next and not 1 <= num_layers <= depth:
        raise ValueError(
            f"num_layers={num_layers} must be between 1 and the backbone's {depth} decoder layers."
        )
    config.get_text_config().num_hidden_layers = num_layers + int(with_next)
    return config
