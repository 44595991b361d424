"""Reads frames with their pictures, measures them, and keeps some to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from lerobot_gem.data.check.facts import CameraFacts, DepthFacts, SampleFrame, SamplePicture
from lerobot_gem.data.check.stage_checks import FrameErrors, depth_picture
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.processing.depth_cameras import METRES, is_depth
from lerobot_gem.processing.depth_target import is_valid
from lerobot_gem.processing.language import Message

# Distances kept of each depth map for the median of all.
_KEPT_DISTANCES = 1000

Item = dict[str, Any]


class PictureReader:
    """Reads frames and measures the pictures of those that it is given.

    Args:
        dataset: Read as training reads it.
        indices: Of its frames in the whole dataset.
        config: Its settings of depth are used.
        pairs: RGB key -> depth key.
        depth_output_unit: Unit in which `dataset` delivers depth of known unit.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        indices: Sequence[int],
        config: BaseGemConfig,
        pairs: dict[str, str],
        depth_output_unit: str,
    ) -> None:
        self.dataset, self.indices, self.config, self.pairs = dataset, indices, config, pairs
        self.features: dict[str, dict[str, Any]] = dataset.meta.features
        keys = dataset.meta.camera_keys
        self._colours = {key: _Colours() for key in keys if not is_depth(self.features[key])}
        self._distances = {key: _Distances() for key in keys if is_depth(self.features[key])}
        # What LeRobot delivers is as it was stored where the dataset does not say the unit.
        self._to_metres = {
            key: METRES[depth_output_unit if self._unit(key) else config.depth.unit]
            for key in self._distances
        }

    def read(self, positions: Sequence[int], errors: FrameErrors) -> list[Item]:
        """Frames at these positions of the dataset, without those that can't be read."""
        items = []
        for position in positions:
            try:
                items.append(self.dataset[position])
            except Exception as error:  # decoders have their own errors, and training stops at any of them
                errors.add(int(self.indices[position]), error)
        return items

    def measure(self, item: Item) -> None:
        """Take a frame into the measurements."""
        for key, colours in self._colours.items():
            colours.add(item[key])
        for key, distances in self._distances.items():
            distances.add(item[key] * self._to_metres[key])

    def cameras(self) -> list[CameraFacts]:
        """What was measured of RGB cameras."""
        return [
            CameraFacts(
                key,
                self._size(key),
                self.features[key]["dtype"],
                self.pairs.get(key),
                colours.one_colour / max(colours.frames, 1),
            )
            for key, colours in self._colours.items()
        ]

    def depth(self) -> list[DepthFacts]:
        """What was measured of depth cameras."""
        partners = {depth: camera for camera, depth in self.pairs.items()}
        return [
            DepthFacts(
                key=key,
                camera=partners.get(key),
                size=self._size(key),
                storage=self.features[key]["dtype"],
                unit=self._unit(key),
                spread=distances.spread(),
                invalid=distances.invalid / max(distances.pixels, 1),
                empty=distances.empty / max(distances.frames, 1),
            )
            for key, distances in self._distances.items()
        ]

    def sample(self, item: Item, messages: list[Message]) -> SampleFrame:
        """A frame to look at."""
        return SampleFrame(
            index=int(item["index"]),
            episode=int(item["episode_index"]),
            timestamp=float(item["timestamp"]),
            task=item["task"],
            pictures=[self._picture(item, camera) for camera in self._colours],
            messages=messages,
        )

    def _picture(self, item: Item, camera: str) -> SamplePicture:
        rgb = _bytes(item[camera])
        key = self.pairs.get(camera)
        if key is None:
            return SamplePicture(camera, rgb)
        depth = item[key] * self._to_metres[key]
        learned = depth_picture(depth[None], rgb.shape[:2], self.config)
        valid = depth[is_valid(depth)]
        reach = (float(valid.min()), float(valid.max())) if len(valid) else None
        picture = _bytes((learned.pictures[0] + 1) / 2)
        return SamplePicture(camera, rgb, picture, reach, 1 - len(valid) / depth.numel())

    def _unit(self, key: str) -> str | None:
        return (self.features[key].get("info") or {}).get("depth_unit")

    def _size(self, key: str) -> tuple[int, int]:
        sides = dict(zip(self.features[key]["names"], self.features[key]["shape"], strict=True))
        return sides["width"], sides["height"]


class _Colours:
    """Counts frames of a single colour."""

    def __init__(self) -> None:
        self.frames = self.one_colour = 0

    def add(self, image: Tensor) -> None:
        pixels = image.flatten(1)
        self.frames += 1
        self.one_colour += bool((pixels.amax(dim=1) == pixels.amin(dim=1)).all())


class _Distances:
    """Collects valid distances of depth maps (1, H, W) in metres."""

    def __init__(self) -> None:
        self.frames = self.empty = self.pixels = self.invalid = 0
        self.least, self.largest = np.inf, -np.inf
        self.kept: list[Tensor] = []

    def add(self, depth: Tensor) -> None:
        valid = depth[is_valid(depth)]
        self.frames += 1
        self.empty += not len(valid)
        self.pixels += depth.numel()
        self.invalid += depth.numel() - len(valid)
        if len(valid):
            self.least = min(self.least, float(valid.min()))
            self.largest = max(self.largest, float(valid.max()))
            self.kept.append(valid[:: max(len(valid) // _KEPT_DISTANCES, 1)])

    def spread(self) -> tuple[float, float, float] | None:
        """Least, median and largest."""
        if not self.kept:
            return None
        return self.least, float(torch.cat(self.kept).median()), self.largest


def _bytes(picture: Tensor) -> Any:
    """(C, H, W) in [0, 1] as (H, W, C) uint8."""
    return (picture.movedim(0, -1) * 255).round().byte().numpy()
