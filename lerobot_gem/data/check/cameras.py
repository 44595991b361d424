"""What the cameras show: reads frames, measures their images and depth maps, and keeps some to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray
from torch import Tensor

from lerobot_gem.data.check.facts import CameraFacts, CameraView, DepthFacts, ShownFrame
from lerobot_gem.data.check.stage_checks import FrameErrors, usable_depth
from lerobot_gem.data.check.training_path import Item, as_floats
from lerobot_gem.policies.base_options import DepthSupervision
from lerobot_gem.processing.depth_cameras import METRES, is_depth
from lerobot_gem.processing.depth_target import depth_target, is_valid
from lerobot_gem.processing.language import Message
from lerobot_gem.storage.dataset_agreement import check_shape

# Distances kept of each depth map for the median of all.
_KEPT_DISTANCES = 1000


class CameraReader:
    """Reads frames and measures the images of those that it is given.

    Statistics of depth in `meta/stats.json` are never used: where depth was stored as PNG, LeRobot computes them as if
    of RGB.

    Args:
        dataset: Read as training reads it.
        supervision: Which depth is looked at, and how it is learned.

    Attributes:
        frames: How many the dataset has.
    """

    def __init__(self, dataset: LeRobotDataset, supervision: DepthSupervision) -> None:
        self._dataset, self._supervision, self._pairs = dataset, supervision, supervision.cameras
        self._features: dict[str, dict[str, Any]] = dataset.meta.features
        self._indices = dataset.hf_dataset.select_columns(["index"]).with_format("numpy")["index"][:]
        self.frames = len(self._indices)
        keys = dataset.meta.camera_keys
        self._colours = {key: _Colours() for key in keys if not is_depth(self._features[key])}
        self._distances = {key: _Distances() for key in keys if is_depth(self._features[key])}
        # What LeRobot delivers is as it was stored where the dataset does not say the unit.
        self._to_metres = {
            key: METRES[dataset.depth_output_unit if self._unit(key) else supervision.unit]
            for key in self._distances
        }

    def read(self, positions: Sequence[int], errors: FrameErrors) -> list[Item]:
        """Frames at these positions of the dataset, without those that can't be read, which are noted in `errors`."""
        items = []
        for position in positions:
            try:
                item = self._dataset[position]
                for key in (*self._colours, *self._distances):
                    check_shape(key, self._features[key], item[key].shape[-3:])
                items.append(as_floats(item, list(self._colours)))
            except Exception as error:  # decoders have their own errors, and training stops at any of them
                errors.add(int(self._indices[self._at_fault(position)]), error)
        return items

    def _at_fault(self, position: int) -> int:
        """Which frame can't be read: with a chunk of actions, LeRobot decodes the stored images of all its frames."""
        ahead = max(map(len, (self._dataset.delta_timestamps or {}).values()), default=1)
        for row in range(position, min(position + ahead, self.frames)):
            try:
                self._dataset.hf_dataset[row]
            except Exception:
                return row
        return position

    def measure(self, item: Item) -> None:
        """Take a frame into the measurements."""
        for key, colours in self._colours.items():
            colours.add(item[key])
        for key, distances in self._distances.items():
            distances.add(item[key] * self._to_metres[key])

    @property
    def measured(self) -> tuple[dict[str, "_Colours"], dict[str, "_Distances"]]:
        """The measurements, for the reader of another process to `take`."""
        return self._colours, self._distances

    def take(self, measured: tuple[dict[str, "_Colours"], dict[str, "_Distances"]]) -> None:
        """Add what another reader measured behind this one."""
        colours, distances = measured
        for key, of_camera in colours.items():
            self._colours[key].take(of_camera)
        for key, of_depth in distances.items():
            self._distances[key].take(of_depth)

    def usable_depth(self, batch: Item) -> Tensor:
        """Which of the frames of a batch have depth to learn from (B,).

        Raises:
            ValueError: What training would raise.
        """
        return usable_depth(batch, self._supervision)

    def cameras(self) -> list[CameraFacts]:
        """What was measured of RGB cameras."""
        return [
            CameraFacts(
                key=key,
                size=self._size(key),
                storage=self._features[key]["dtype"],
                depth=self._pairs.get(key),
                one_colour=colours.one_colour / max(colours.frames, 1),
            )
            for key, colours in self._colours.items()
        ]

    def depth(self) -> list[DepthFacts]:
        """What was measured of depth cameras."""
        partners = {depth: camera for camera, depth in self._pairs.items()}
        return [
            DepthFacts(
                key=key,
                camera=partners.get(key),
                size=self._size(key),
                storage=self._features[key]["dtype"],
                unit=self._unit(key),
                distances=distances.range(),
                invalid=distances.invalid / max(distances.pixels, 1),
                empty=distances.empty / max(distances.frames, 1),
            )
            for key, distances in self._distances.items()
        ]

    def show(self, item: Item, messages: list[Message]) -> ShownFrame:
        """A frame to look at.

        Args:
            item: The frame.
            messages: What `gem` learns to answer in it.
        """
        return ShownFrame(
            index=int(item["index"]),
            episode=int(item["episode_index"]),
            timestamp=float(item["timestamp"]),
            task=item["task"],
            views=[self._view(item, camera) for camera in self._colours],
            messages=messages,
        )

    def _view(self, item: Item, camera: str) -> CameraView:
        rgb = _bytes(item[camera])
        height, width, _ = rgb.shape
        if camera not in self._pairs:
            return CameraView(camera, rgb)
        key = self._pairs[camera]
        depth = item[key] * self._to_metres[key]
        learned = depth_target(
            depth[None],
            colormap=self._supervision.colormap,
            max_side=self._supervision.max_side,
            rgb_size=(height, width),
        )
        valid = depth[is_valid(depth)]
        reach = (float(valid.min()), float(valid.max())) if len(valid) else None
        return CameraView(
            camera, rgb, _bytes((learned.pictures[0] + 1) / 2), reach, 1 - len(valid) / depth.numel()
        )

    def _unit(self, key: str) -> str | None:
        return (self._features[key].get("info") or {}).get("depth_unit")

    def _size(self, key: str) -> tuple[int, int]:
        sides = dict(zip(self._features[key]["names"], self._features[key]["shape"], strict=True))
        return sides["width"], sides["height"]


class _Colours:
    """Counts frames of a single colour."""

    def __init__(self) -> None:
        self.frames = self.one_colour = 0

    def add(self, image: Tensor) -> None:
        pixels = image.flatten(1)
        self.frames += 1
        self.one_colour += bool((pixels.amax(dim=1) == pixels.amin(dim=1)).all())

    def take(self, others: "_Colours") -> None:
        self.frames += others.frames
        self.one_colour += others.one_colour


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
            # A copy: a view would keep all pixels, in memory and on the way to another process.
            self.kept.append(valid[:: max(len(valid) // _KEPT_DISTANCES, 1)].clone())

    def take(self, others: "_Distances") -> None:
        self.frames += others.frames
        self.empty += others.empty
        self.pixels += others.pixels
        self.invalid += others.invalid
        self.least, self.largest = min(self.least, others.least), max(self.largest, others.largest)
        self.kept += others.kept

    def range(self) -> tuple[float, float, float] | None:
        """Least, median and largest."""
        if not self.kept:
            return None
        return self.least, float(torch.cat(self.kept).median()), self.largest


def _bytes(picture: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1] as (H, W, C) uint8."""
    return (picture.movedim(0, -1) * 255).round().byte().numpy()
