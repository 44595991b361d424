"""The depth generator of GEM: a diffusion transformer that paints the depth of an image the backbone has seen.

The connector takes the final, normed hidden states of an image's tokens to the width of SANA's captions. SANA's
transformer is taught by flow matching, in the latent space of a frozen DC-AE, to paint the picture that
`processing/depth_target.py` makes of the depth map; its loss flows back into the backbone. All three are diffusers'
own classes.

Compatible with the release, whose quirks are kept where trained weights depend on them:

* noise has sigma 1: a noisy latent is (1 - sigma) latent + sigma noise, the velocity noise - latent. The action
  expert's time runs the other way;
* the transformer is given the scheduler's timestep, 1 to 1000, as it is;
* "no conditioning" is hidden states of zero before the connector, not after it.

Different on purpose: spans of different lengths are masked in sampling too; conditioning is dropped in training mode
only; each sampling has a scheduler of its own, so that it can't disturb the training's.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel
from diffusers.models.normalization import RMSNorm
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from lerobot_gem.models.presets import DepthArchitecture

# Share of the images whose conditioning is dropped in training, for classifier-free guidance (arXiv 2605.28548).
_DROP_PROBABILITY = 0.1
_CONNECTOR_NORM_EPS = 1e-5


class DepthGenerator(nn.Module):
    """Connector, transformer and frozen autoencoder (paper, section 3.1; the release's `DepthExpert`).

    Images of one call share one size; group them by size before. Parameters may have any dtype, and autocast works:
    noise, velocity and loss are in float32.

    Args:
        architecture: Sizes; weights are random.
        conditioning_dim: Width of the backbone's hidden states.
    """

    def __init__(self, architecture: DepthArchitecture, conditioning_dim: int) -> None:
        super().__init__()
        width = architecture.transformer["caption_channels"]
        self.conditioning_dim = conditioning_dim
        self.connector = nn.Sequential(
            nn.Linear(conditioning_dim, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
            RMSNorm(width, eps=_CONNECTOR_NORM_EPS),
        )
        # Any: diffusers' mixins add attributes that type checkers don't see.
        self.transformer: Any = SanaTransformer2DModel.from_config(architecture.transformer)
        self.autoencoder: Any = AutoencoderDC.from_config(architecture.autoencoder)
        self.autoencoder.requires_grad_(False).eval()
        # That of training, with all timesteps; stepping would change it, so nothing does.
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(architecture.scheduler)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts but the autoencoder, which is never in training."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the transformer's activations in the backward pass: less memory, more time."""
        self.transformer.enable_gradient_checkpointing()

    def loss(
        self,
        conditioning: Tensor,
        mask: Tensor,
        targets: Tensor,
        *,
        noise: Tensor | None = None,
        timestep_indices: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:
        """Flow-matching loss of each image.

        What is not given is drawn in the release's order: noise, timesteps (uniform), dropped conditioning.

        Args:
            conditioning: (N, S, D), hidden states of each image's tokens, padded.
            mask: (N, S) bool, True at tokens.
            targets: (N, 3, h, w) in [-1, 1], depth pictures with sides that the autoencoder divides.
            noise: (N, C, h / f, w / f) of the latents' shape.
            timestep_indices: (N,) integers in [0, 1000) into the training timesteps; 0 is pure noise.
            drop: (N,) bool, True where conditioning becomes zero. None drops a tenth in training mode, else nothing.

        Returns:
            (N,) mean squared errors of the velocity, float32.

        Raises:
            ValueError: Shapes don't fit.
        """
        self._check(conditioning, mask, targets.shape[-2:])
        latents = self.encode(targets)
        if noise is None:
            noise = torch.randn_like(latents)
        if timestep_indices is None:
            drawn = torch.rand(len(latents), device=latents.device)
            timestep_indices = (drawn * self.scheduler.config.num_train_timesteps).long()
        if drop is None and self.training:
            drop = torch.bernoulli(torch.full((len(latents),), _DROP_PROBABILITY, device=latents.device))
        if drop is not None:
            conditioning = conditioning.masked_fill(drop.bool()[:, None, None], 0)
        timesteps = self.scheduler.timesteps.to(latents.device)[timestep_indices]
        sigmas = self.scheduler.sigmas.to(latents.device)[timestep_indices, None, None, None]
        noisy = (1 - sigmas) * latents + sigmas * noise
        velocity = self._velocity(noisy, timesteps, self._captions(conditioning), mask)
        return (velocity - (noise - latents)).square().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def sample(
        self,
        conditioning: Tensor,
        mask: Tensor,
        size: tuple[int, int],
        *,
        guidance_scale: float = 5.0,
        num_inference_steps: int = 30,
        latents: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> Tensor:
        """Paint depth pictures, with classifier-free guidance.

        Args:
            conditioning: (N, S, D), hidden states of each image's tokens, padded.
            mask: (N, S) bool, True at tokens.
            size: Height and width of the pictures; the autoencoder divides them.
            guidance_scale: 1 is no guidance, and half the work.
            num_inference_steps: Euler steps, sigmas evenly from 1 to 1 / steps (before the scheduler's shift).
            latents: Noise (N, C, h / f, w / f) to begin from; drawn if None.
            generator: Draws the noise; a list has one for each of the N.

        Returns:
            (N, 3, h, w) in [0, 1], float32.

        Raises:
            ValueError: Shapes don't fit.
        """
        self._check(conditioning, mask, size)
        ratio = self.autoencoder.spatial_compression_ratio
        shape = (len(conditioning), self.transformer.config.in_channels, size[0] // ratio, size[1] // ratio)
        device = conditioning.device
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        guided = guidance_scale != 1
        if guided:
            conditioning, mask = torch.cat([torch.zeros_like(conditioning), conditioning]), mask.repeat(2, 1)
        captions = self._captions(conditioning)

        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(
            sigmas=np.linspace(1, 1 / num_inference_steps, num_inference_steps), device=device
        )
        for timestep in scheduler.timesteps:
            inputs = torch.cat([latents, latents]) if guided else latents
            velocity = self._velocity(inputs, timestep.expand(len(inputs)), captions, mask)
            if guided:
                without, conditioned = velocity.chunk(2)
                velocity = without + guidance_scale * (conditioned - without)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return (self.decode(latents) / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, h, w) in [-1, 1] to scaled latents (N, C, h / f, w / f), float32."""
        latents = self.autoencoder.encode(_cast_for(self.autoencoder, pictures), return_dict=False)[0]
        return latents.float() * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, C, h / f, w / f) to pictures (N, 3, h, w), about in [-1, 1], float32."""
        latents = latents / self.autoencoder.config.scaling_factor
        return self.autoencoder.decode(_cast_for(self.autoencoder, latents), return_dict=False)[0].float()

    def _captions(self, conditioning: Tensor) -> Tensor:
        return self.connector(_cast_for(self.connector, conditioning))

    def _velocity(self, latents: Tensor, timesteps: Tensor, captions: Tensor, mask: Tensor) -> Tensor:
        """Predict noise - latent (N, C, h / f, w / f) in float32, from noisy latents of that shape."""
        return self.transformer(
            _cast_for(self.transformer, latents),
            encoder_hidden_states=_cast_for(self.transformer, captions),
            encoder_attention_mask=mask,
            timestep=timesteps,
            return_dict=False,
        )[0].float()

    def _check(self, conditioning: Tensor, mask: Tensor, size: Sequence[int]) -> None:
        if conditioning.ndim != 3 or conditioning.shape[-1] != self.conditioning_dim:
            raise ValueError(
                f"The depth generator expects conditioning of shape (N, S, {self.conditioning_dim}) but got "
                f"{tuple(conditioning.shape)}."
            )
        if mask.shape != conditioning.shape[:2]:
            raise ValueError(
                f"The depth generator expects a mask of shape {tuple(conditioning.shape[:2])} but got {tuple(mask.shape)}."
            )
        ratio = self.autoencoder.spatial_compression_ratio
        if size[0] % ratio or size[1] % ratio:
            raise ValueError(
                f"Depth pictures must have sides that are multiples of {ratio}, the autoencoder's compression, but are "
                f"{size[0]} x {size[1]} (height x width); processing/depth_target.py makes such."
            )


def _cast_for(module: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs in the type of a module's weights; under autocast in float32, whatever type the weights are stored in."""
    if torch.is_autocast_enabled(inputs.device.type):
        return inputs.float()
    return inputs.to(next(module.parameters()).dtype)
