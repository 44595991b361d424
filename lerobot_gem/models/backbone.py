"""The backbone: Qwen3-VL, read layer by layer and no further than asked.

The action expert conditions on hidden states of early decoder layers. transformers' own forward always runs every
layer, and what it calls `hidden_states` changed between its major versions; so this module runs transformers' layers
itself and names what it returns:

| state | `layer_inputs` (default) | `hidden_states` |
|---|---|---|
| 0 | embeddings with image features | the same |
| i | what decoder layer i reads: output of layer i-1 plus its deep-stack feature | output of layer i-1, without the feature |
| last | what the final norm reads | after the final norm |
| equals | `output_hidden_states` of transformers 4.57.3, which the release pins | the same of transformers 5 |
"""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLModel
from transformers.masking_utils import create_causal_mask
from transformers.utils import logging as transformers_logging

StateConvention = Literal["layer_inputs", "hidden_states"]

# Weights that a checkpoint may hold although the backbone has no place for them: the language head, which reading
# hidden states never needs, and the depth generator that GEM-2B carries along.
_OTHER_PARTS = re.compile(r"(lm_head|sana|vae|diffusion_connector)\.")
_DECODER_LAYER = re.compile(r"(?:model\.)?language_model\.layers\.(\d+)\.")


class GemBackbone(nn.Module):
    """Qwen3-VL that returns the hidden states asked for and runs nothing beyond the last of them.

    Args:
        config: of the whole model, also when it is truncated.
        num_layers: decoder layers to keep; None for all. A truncated backbone has no final norm, since nothing could
            reach it.

    Raises:
        ValueError: `num_layers` is not between 1 and the depth of `config`.
    """

    def __init__(self, config: Qwen3VLConfig, *, num_layers: int | None = None) -> None:
        super().__init__()
        self.config = config
        # Any: transformers annotates tensors as LongTensor and the like, which no operation returns.
        self.model: Any = Qwen3VLModel(_truncated(config, num_layers))
        self._drop_unreachable_norm()

    @classmethod
    def from_pretrained(
        cls,
        pretrained: str | Path,
        *,
        num_layers: int | None = None,
        dtype: torch.dtype = torch.float32,
        **hub_kwargs: Any,
    ) -> "GemBackbone":
        """Load Qwen3-VL, or the backbone of a checkpoint in the layout of GEM-2B.

        Args:
            pretrained: Hub id or folder. A language head, decoder layers past `num_layers` and GEM-2B's depth
                generator are skipped; any other weight without a place is an error.
            num_layers: decoder layers to keep; None for all.
            dtype: of the loaded weights.
            **hub_kwargs: `revision`, `cache_dir`, `local_files_only` and the like.

        Raises:
            FileNotFoundError: neither a folder nor a Hub id that can be reached or is in the cache.
            ValueError: not a Qwen3-VL checkpoint, cut short, or a weight is missing, unexpected or mis-shaped; the
                message names it.
        """
        config = _read_config(pretrained, **hub_kwargs)
        truncated = _truncated(config, num_layers)
        try:
            with _without_load_warnings():
                loaded: Any = Qwen3VLModel.from_pretrained(
                    pretrained,
                    config=truncated,
                    dtype=dtype,
                    output_loading_info=True,
                    # Collected in the report instead of raised, so that one error can name all faults.
                    ignore_mismatched_sizes=True,
                    **hub_kwargs,
                )
        except SafetensorError as error:
            raise ValueError(
                f"The weights in {pretrained} can't be read ({error}); copy or download them again."
            ) from error
        except OSError as error:
            raise _not_found(pretrained) from error
        model, report = loaded
        _check_report(report, pretrained, truncated.get_text_config().num_hidden_layers)

        # A skeleton without memory, whose empty weights the loaded model replaces.
        with torch.device("meta"):
            backbone = cls(config, num_layers=num_layers)
        backbone.model = model
        backbone._drop_unreachable_norm()
        return backbone

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
        """Decoder layers that are kept; states 0 to `num_layers` can be asked for."""
        return len(self.model.language_model.layers)

    @property
    def image_token_id(self) -> int:
        """Token that image features replace."""
        return self.config.image_token_id

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers of both towers in the backward pass instead of keeping their activations."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.model.gradient_checkpointing_disable()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        image_grid_thw: Tensor,
        *,
        layers: Sequence[int],
        convention: StateConvention = "layer_inputs",
    ) -> Tensor:
        """Return the hidden states of some layers.

        Args:
            input_ids: (B, L), one image token per merged patch.
            attention_mask: (B, L), 1 where a token is real; rows of unequal length are padded on the left.
            pixel_values: (P, patch_dim), the patches of all images, as transformers' image processor makes them.
            image_grid_thw: (N, 3), patches of each image in time, height and width.
            layers: which states, each 0 to `num_layers`, in any order.
            convention: what a state is; see the module's docstring.

        Returns:
            (B, len(layers), L, D). Values at padded positions mean nothing.

        Raises:
            ValueError: a layer out of range, no layer, unknown convention, or image tokens that don't match the
                image features.
        """
        self._check_request(layers, convention)
        language = self.model.language_model
        embeddings, image_features = self._embed(input_ids, pixel_values, image_grid_thw)
        positions, _ = self.model.get_rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == self.image_token_id).int(),
            image_grid_thw=image_grid_thw,
            attention_mask=attention_mask,
        )
        rotary = language.rotary_emb(embeddings, positions)
        causal_mask = create_causal_mask(
            config=language.config,
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            past_key_values=None,
        )

        # Two views of the same stream: `x` is what the next layer reads, `output` what the last one wrote.
        x = output = embeddings
        states: dict[int, Tensor] = {}
        for index in range(max(layers) + 1):
            if index > 0:
                output = language.layers[index - 1](
                    x, attention_mask=causal_mask, position_ids=None, position_embeddings=rotary
                )
                x = output + image_features[index - 1] if index <= len(image_features) else output
            if index in layers:
                states[index] = (
                    x if convention == "layer_inputs" else self._transformers_state(index, x, output)
                )
        return torch.stack([states[index] for index in layers], dim=1)

    def _embed(
        self, input_ids: Tensor, pixel_values: Tensor, image_grid_thw: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Embeddings (B, L, D) with image features in place, and deep-stack features (B, L, D), zero at text."""
        embeddings = self.model.get_input_embeddings()(input_ids)
        vision = self.model.get_image_features(pixel_values, image_grid_thw)
        features = torch.cat(vision.pooler_output).to(embeddings.dtype)
        mask, _ = self.model.get_placeholder_mask(input_ids, embeddings, image_features=features)
        nothing = torch.zeros_like(embeddings)
        deep_stack = [
            nothing.masked_scatter(mask, feature.to(embeddings.dtype))
            for feature in vision.deepstack_features
        ]
        return embeddings.masked_scatter(mask, features), deep_stack

    def _transformers_state(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """State `index` as transformers 5 records it."""
        if index == self.config.get_text_config().num_hidden_layers:
            return self.model.language_model.norm(x)
        return output

    def _check_request(self, layers: Sequence[int], convention: str) -> None:
        if convention not in get_args(StateConvention):
            raise ValueError(
                f"Unknown convention {convention!r} of hidden states; "
                f"choose one of {', '.join(map(repr, get_args(StateConvention)))}."
            )
        if not layers:
            raise ValueError("No layer asked for; name at least one.")
        for index in layers:
            if not 0 <= index <= self.num_layers:
                raise ValueError(
                    f"Layer {index} is past this backbone of {self.num_layers} decoder layers; "
                    f"ask for layers from 0 to {self.num_layers}."
                )

    def _drop_unreachable_norm(self) -> None:
        if self.num_layers < self.config.get_text_config().num_hidden_layers:
            self.model.language_model.norm = nn.Identity()


def _truncated(config: Qwen3VLConfig, num_layers: int | None) -> Qwen3VLConfig:
    depth = config.get_text_config().num_hidden_layers
    if num_layers is not None and not 1 <= num_layers <= depth:
        raise ValueError(
            f"num_layers={num_layers} must be between 1 and the backbone's {depth} decoder layers."
        )
    config = copy.deepcopy(config)
    config.get_text_config().num_hidden_layers = depth if num_layers is None else num_layers
    return config


def _read_config(pretrained: str | Path, **hub_kwargs: Any) -> Qwen3VLConfig:
    try:
        values, _ = Qwen3VLConfig.get_config_dict(pretrained, **hub_kwargs)
    except OSError as error:
        raise _not_found(pretrained) from error
    if values.get("model_type") != Qwen3VLConfig.model_type:
        raise ValueError(
            f"{pretrained} is a {values.get('model_type')!r} checkpoint; the backbone needs {Qwen3VLConfig.model_type!r}."
        )
    return Qwen3VLConfig.from_dict(values)


def _not_found(pretrained: str | Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"No Qwen3-VL checkpoint (config.json and weights) at {str(pretrained)!r}: it is not such a folder, and not "
        "a Hub repository that is in the local cache or can be downloaded now. Give an existing folder, or a Hub id "
        "while online (unset HF_HUB_OFFLINE; private repositories need a login), or fetch it first with "
        "`hf download`."
    )


@contextmanager
def _without_load_warnings() -> Iterator[None]:
    """Silence transformers' table of weights without a place; `_check_report` judges them, and most are meant."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _check_report(report: dict[str, Any], pretrained: str | Path, num_layers: int) -> None:
    """Turn transformers' loading report into one error, unless the weights fit exactly."""

    def is_surplus(name: str) -> bool:
        layer = _DECODER_LAYER.match(name)
        return bool(_OTHER_PARTS.match(name)) or bool(layer and int(layer[1]) >= num_layers)

    faults = {
        "missing": report["missing_keys"],
        "unexpected": [name for name in report["unexpected_keys"] if not is_surplus(name)],
        "of another shape": [
            f"{name} ({tuple(found)}, expected {tuple(expected)})"
            for name, found, expected in report["mismatched_keys"]
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {_abbreviated(names)}" for fault, names in faults.items() if names)
        raise ValueError(f"The weights in {pretrained} do not fit its config.json: {listed}.")


def _abbreviated(names: Iterable[str], limit: int = 10) -> str:
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
