"""Qwen3-VL's vision tower, with what the sizes of the images decide kept apart from what their pixels decide.

transformers computes positions anew for each pass and reads the images' lengths back to the host in every block. Here
they are computed once for images of the same sizes, and images of one size attend together. The weights, and the result, are
transformers'.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    BaseModelOutputWithDeepstackFeatures,
    Qwen3VLVisionAttention,
    Qwen3VLVisionModel,
    Qwen3VLVisionPatchEmbed,
    apply_rotary_pos_emb_vision,
)


class ImagePositions(NamedTuple):
    """What the sizes of the images alone decide.

    Args:
        embeddings: (P, C), position embedding of each patch.
        cos: (P, head_size), of the rotary positions.
        sin: Of the same shape.
        lengths: Patches of each image.
    """

    embeddings: Tensor
    cos: Tensor
    sin: Tensor
    lengths: tuple[int, ...]


class VisionTower(Qwen3VLVisionModel):
    """transformers' tower, which also takes positions that were computed before."""

    @classmethod
    def replace(cls, tower: Qwen3VLVisionModel) -> None:
        """Make transformers' tower one of these, and the layers of it that differ.

        Qwen3VLModel names the class of its tower itself; a second tower beside it would draw its random weights anew.
        """
        tower.__class__ = cls
        tower.patch_embed.__class__ = PatchEmbedding
        for block in tower.blocks:
            block.attn.__class__ = ImageAttention

    def positions(self, image_grid_thw: Tensor) -> ImagePositions:
        """Positions of the patches of images; waits for the device.

        Args:
            image_grid_thw: (N, 3), patches of each image in time, height and width.
        """
        angles = self.rot_pos_emb(image_grid_thw)
        angles = torch.cat((angles, angles), dim=-1)
        lengths = tuple(
            height * width for frames, height, width in image_grid_thw.tolist() for _ in range(frames)
        )
        return ImagePositions(
            self.fast_pos_embed_interpolate(image_grid_thw), angles.cos(), angles.sin(), lengths
        )

    def forward(
        self, pixel_values: Tensor, grid_thw: Tensor | None = None, *, positions: Any = None, **kwargs: Any
    ) -> Any:
        """Read images.

        Args:
            pixel_values: (P, patch_dim), the patches of all images.
            grid_thw: (N, 3), for transformers, which gives no positions.
            positions: `ImagePositions` of the images.
            **kwargs: Not read; transformers passes what other towers need.

        Returns:
            transformers' output: `pooler_output` is (tokens, D), as are the `deepstack_features`.
        """
        if positions is None:
            assert grid_thw is not None
            positions = self.positions(grid_thw)
        x = self.patch_embed(pixel_values) + positions.embeddings
        deepstack = []
        for index, block in enumerate(self.blocks):
            x = block(
                x,
                cu_seqlens=None,
                position_embeddings=(positions.cos, positions.sin),
                lengths=positions.lengths,
            )
            if index in self.deepstack_visual_indexes:
                merger = self.deepstack_merger_list[self.deepstack_visual_indexes.index(index)]
                deepstack.append(merger(x))
        return BaseModelOutputWithDeepstackFeatures(
            last_hidden_state=x, pooler_output=self.merger(x), deepstack_features=deepstack
        )


class PatchEmbedding(Qwen3VLVisionPatchEmbed):
    """transformers' layer as one product of matrices: a convolution takes 40 times as long on a CPU (benchmarks/layers.py)."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Embed patches (P, patch_dim) as (P, C)."""
        weight = self.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), self.proj.bias)


class ImageAttention(Qwen3VLVisionAttention):
    """Each image attends to itself; images of one size are one batch."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor | None = None,
        rotary_pos_emb: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> Tensor:
        """Attend within images.

        Args:
            hidden_states: (P, C), the patches of all images.
            cu_seqlens: Not read, as `rotary_pos_emb` is not; the block passes them.
            rotary_pos_emb: See `cu_seqlens`.
            position_embeddings: Cosines and sines (P, head_size).
            lengths: Patches of each image.
            **kwargs: Not read.
        """
        assert position_embeddings is not None
        query, key, value = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        tensors = (query, key, value)
        # Each (images, patches, heads, head_size): all images at once if they are of one size, else one after the other.
        batches = (
            [[tensor.unflatten(0, (len(lengths), -1)) for tensor in tensors]]
            if len(set(lengths)) == 1
            else zip(*(tensor[None].split(lengths, dim=1) for tensor in tensors), strict=True)
        )
        attended = []
        for batch in batches:
            query, key, value = (tensor.transpose(1, 2) for tensor in batch)
            of_images = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
            attended.append(of_images.transpose(1, 2).flatten(0, 1))
        return self.proj(torch.cat(attended).flatten(1))
