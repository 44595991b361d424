"""Camera frames -> the patches that Qwen3-VL's vision tower reads, on the device where the frames are.

Resizing rule (Qwen's `smart_resize`): each side becomes the nearest multiple of ``patch_size * merge_size``;
an image outside [min_pixels, max_pixels] is first scaled into that range with its aspect ratio kept.

Importing this module does not import transformers: the processor steps, which every LeRobot command imports, hold a
`CameraImages`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

# Far more than a prompt can hold: frames are enlarged as a checkpoint says, which may be a stranger's.
_MOST_RESIZED_PIXELS = 2**26


@dataclass(frozen=True)
class CameraImages:
    """How the cameras of one observation become images of one prompt.

    Attributes:
        cameras: Observation keys, in prompt order.
        layout: "separate" gives each camera an image and a vision span of its own (the release's training);
            "concat" puts the cameras side by side, left to right, in one image (the release's inferencer).
        patch_size: Side of a vision patch in pixels.
        temporal_patch_size: Frames of a vision patch; a still image is repeated that often.
        merge_size: Patches per side that are merged into one visual token.
        min_pixels: Smallest image area after resizing.
        max_pixels: Largest image area after resizing.
    """

    cameras: Sequence[str]
    layout: str
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int

    def __post_init__(self) -> None:
        if self.max_pixels > _MOST_RESIZED_PIXELS or self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels={self.min_pixels}, max_pixels={self.max_pixels}: expected areas of images, the smallest first, and none "
                f"above {_MOST_RESIZED_PIXELS}."
            )

    @cached_property
    def _processor(self) -> Any:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

        # Qwen3-VL's normalisation maps [0, 1] to [-1, 1].
        return Qwen2VLImageProcessor(
            patch_size=self.patch_size,
            temporal_patch_size=self.temporal_patch_size,
            merge_size=self.merge_size,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )

    def _frames(self, observation: dict[str, Tensor]) -> list[Tensor]:
        """The frames of the cameras, each (B, 3, H, W), which "concat" puts side by side."""
        missing = [camera for camera in self.cameras if camera not in observation]
        if missing:
            given = sorted(key for key in observation if key.startswith("observation.image"))
            raise ValueError(
                f"The observation lacks the camera(s) {missing} that the policy was trained with; it has {given}. "
                "Rename yours with --rename_map, or train with --policy.cameras.names set to the cameras you have."
            )
        frames = [observation[camera] for camera in self.cameras]
        for camera, frame in zip(self.cameras, frames, strict=True):
            if frame.shape[-3] != 3:
                raise ValueError(
                    f"{camera} has {frame.shape[-3]} channels: expected 3, red, green and blue. Convert the pictures, or flag the "
                    "camera as depth (info.is_depth_map=true in the dataset's meta/info.json) if it is."
                )
        if self.layout == "concat":
            heights = {camera: frame.shape[-2] for camera, frame in zip(self.cameras, frames, strict=True)}
            if len(set(heights.values())) > 1:
                raise ValueError(
                    f"cameras.layout=concat needs cameras of one height, got {heights}. "
                    "Resize them, or use --policy.cameras.layout=separate."
                )
        return frames

    def token_counts(self, observation: dict[str, Tensor]) -> list[int]:
        """Visual tokens of each image of the prompt (the same for all samples of a batch).

        Raises:
            ValueError: A camera is missing, or "concat" meets cameras of different heights.
        """
        sizes = [frame.shape[-2:] for frame in self._frames(observation)]
        if self.layout == "concat":
            return [self.token_count(sizes[0][0], sum(width for _, width in sizes))]
        return [self.token_count(*size) for size in sizes]

    def token_count(self, height: int, width: int) -> int:
        """Visual tokens of one image of this size."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        factor = self.patch_size * self.merge_size
        height, width = smart_resize(
            height, width, factor=factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )
        return (height // factor) * (width // factor)

    def patches(
        self, observation: dict[str, Tensor], shown: Sequence[tuple[int, int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Resize, normalise and cut the frames into patches.

        Args:
            observation: Holds (B, 3, H, W) floats in [0, 1] under each camera's key.
            shown: Sample and camera of each image, in the order of the vision spans. None is all images, sample by
                sample, camera by camera.

        Returns:
            `pixel_values` (P, 3 * temporal_patch_size * patch_size ** 2) and, on the CPU, `image_grid_thw` (images, 3).
        """
        frames = self._frames(observation)
        if self.layout == "concat":
            frames = [torch.cat(frames, dim=-1)]
        if shown is None:
            shown = [(sample, image) for sample in range(len(frames[0])) for image in range(len(frames))]
        return self.patches_of([frames[image][sample] for sample, image in shown])

    def patches_of(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The same for a list of images (3, H, W) of any sizes."""
        # Bytes, as Qwen3-VL and the release resize them: floats would overshoot black and white at edges.
        pixels = [(255 * image).round().clamp(0, 255).to(torch.uint8) for image in images]
        inputs = self._processor(images=pixels, input_data_format="channels_first", return_tensors="pt")
        return inputs["pixel_values"], inputs["image_grid_thw"]
