"""Acting by tokens: the backbone writes a chunk, one token after the other.

The observation goes through the backbone once; its keys and values are kept. Then each step runs one position, and a head of the
action tokens' rows alone (at 2B, 0.2 ms where all rows take 51). A token that stands for more coefficients than the chunk has left
is never taken, so that every row ends with a whole chunk, by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import DynamicCache

from lerobot_gem.models.backbone import GemBackbone


@dataclass(frozen=True)
class ActionTokenWriter:
    """Writes action tokens.

    Attributes:
        backbone: Has all its layers and a language head, and is in evaluation mode.
        prefix: Tokens behind the observation, the start of actions last.
        first_row: Row of action token 0 in the embedding.
        lengths: Coefficients that each action token stands for.
    """

    backbone: GemBackbone
    prefix: Sequence[int]
    first_row: int
    lengths: Sequence[int]

    @torch.no_grad()
    def write(
        self,
        tokens: Tensor,
        mask: Tensor,
        pixel_values: Tensor,
        image_grid_thw: Tensor,
        *,
        coefficients: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Action tokens, from 0, behind each of some observations.

        Args:
            tokens: (B, L), padded on the left.
            mask: (B, L), True where a token is real.
            pixel_values: (P, patch_dim), the patches of all images.
            image_grid_thw: (N, 3), patches of each image.
            coefficients: How many each row's tokens stand for together.
            temperature: 0 takes the likeliest token, more draws from softmax(logits / temperature).
            generator: Draws, on the device of the tokens.
        """
        prefix = torch.tensor(self.prefix, device=tokens.device).expand(len(tokens), -1)
        prompts = torch.cat([tokens, prefix], dim=1)
        mask = torch.cat([mask.long(), torch.ones_like(prefix)], dim=1)
        backbone, language = self.backbone, self.backbone.model.language_model
        prompt = backbone.prepare(prompts, mask, image_grid_thw)
        cache = DynamicCache(config=language.config)
        states = backbone.read(
            prompt,
            backbone.see(pixel_values, prompt.images),
            layers=[backbone.num_layers],
            convention="hidden_states",
            cache=cache,
        )[:, 0, -1]
        position = prompt.positions.masked_fill(mask == 0, 0).amax(dim=(0, 2)) + 1  # (B,) of the next token

        lengths = torch.tensor(self.lengths, device=tokens.device)
        written: list[list[int]] = [[] for _ in tokens]
        rows = torch.arange(len(tokens), device=tokens.device)  # those that are not whole yet
        left = torch.full_like(rows, coefficients)
        while True:
            chosen = self._choose(states, lengths <= left[:, None], temperature, generator)
            for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
                written[row].append(token)
            left = left - lengths[chosen]
            goes_on = left > 0
            if not goes_on.any():
                return written
            if not goes_on.all():
                cache.batch_select_indices(goes_on.nonzero().flatten())
                rows, left, chosen = rows[goes_on], left[goes_on], chosen[goes_on]
                mask, position = mask[goes_on], position[goes_on]
            mask = F.pad(mask, (0, 1), value=1)
            embeddings = language.embed_tokens(chosen[:, None] + self.first_row)
            states = language(
                inputs_embeds=embeddings.to(prompt.embeddings.dtype),
                attention_mask=mask,
                position_ids=position[None, :, None].expand(3, -1, 1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            position = position + 1

    def _choose(
        self, states: Tensor, allowed: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """The next action token (B,) after final states (B, D), of those that are allowed (B, tokens)."""
        rows = slice(self.first_row, self.first_row + len(self.lengths))
        logits = F.linear(states, self.backbone.head_weight[rows].to(states.dtype)).float()
        logits = logits.masked_fill(~allowed, float("-inf"))
        if temperature == 0:
            return logits.argmax(dim=-1)
        return torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]
