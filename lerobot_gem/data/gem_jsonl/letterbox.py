"""Fitting images, their depth maps and the coordinates in texts about them into one size.

Qwen3-VL's coordinates go from 0 to 1,000 across the image, whatever its size. They stay true when the image is resized, even
to another aspect ratio, but not when it gets bars. With bars, coordinates that can be recognised for certain are moved, and
texts with any others are refused, since a wrong place is worse than none.

`PIL.ImageOps.pad` is no substitute: it centres with another rounding, adds bars for a difference in aspect ratio of less
than 1 %, and may give a depth map of another resolution other bars than its image.
"""

import re
from dataclasses import dataclass

from PIL import Image

from lerobot_gem.data.gem_jsonl.records import RecordError

Size = tuple[int, int]  # width, height, as in PIL

# Values of `--resize`.
RESIZES = ("letterbox", "stretch")

_NUMBER = r"[-+]?\d*\.?\d+"
# Qwen3-VL's notation: "bbox_2d": [x1, y1, x2, y2] and "point_2d": [x, y], from 0 to 1,000.
_COORDINATES = re.compile(r"""(["'](?:bbox|point)_2d["']\s*:\s*\[)([^\[\]]*)(\])""")
# What else may be a place in the image: two or four numbers in brackets, tags, "x" with a number.
_UNKNOWN_COORDINATES = re.compile(
    rf"[(\[<]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*(?:,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*)?[)\]>]"
    rf"""|<\|?(?:point|box)|\bx\d?["']?\s*[:=]\s*["']?{_NUMBER}""",
    re.IGNORECASE,
)
# Of the aspect ratio; `pair_depth` allows the same between a camera and its depth camera.
_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Letterbox:
    """Fits images of one size into another.

    Attributes:
        source: Width and height of the image.
        target: Width and height that it gets.
        stretch: Change the aspect ratio, instead of adding black bars on two opposite sides.
    """

    source: Size
    target: Size
    stretch: bool = False

    @property
    def inner(self) -> Size:
        """Width and height of the image within the bars."""
        if self.stretch or _one_aspect(self.source, self.target):
            return self.target
        scale = min(self.target[0] / self.source[0], self.target[1] / self.source[1])
        width, height = (max(1, round(side * scale)) for side in self.source)
        return width, height

    @property
    def offset(self) -> Size:
        """Where the image begins: width of the left bar, height of the upper one."""
        return (self.target[0] - self.inner[0]) // 2, (self.target[1] - self.inner[1]) // 2

    @property
    def has_bars(self) -> bool:
        """Whether the image gets bars."""
        return self.inner != self.target

    def image(self, image: Image.Image) -> Image.Image:
        """An RGB image in the target size, with black bars."""
        return self._fit(image, Image.Resampling.BICUBIC)

    def depth(self, depth: Image.Image) -> Image.Image:
        """A depth map in the target size, by the nearest pixel, with bars of 0, which means no depth.

        Raises:
            RecordError: Its aspect ratio differs from the image's.
        """
        if not _one_aspect(depth.size, self.source):
            raise RecordError(
                "depth of another size",
                "the depth map is {} x {} pixels, the image {} x {}; expected one aspect ratio".format(
                    *depth.size, *self.source
                ),
            )
        return self._fit(depth, Image.Resampling.NEAREST)

    def text(self, text: str) -> str:
        """A question or answer about the image, with its coordinates moved.

        Raises:
            RecordError: Coordinates are in pixels, or the image gets bars and coordinates can't be moved for certain.
        """
        if self.source == self.target:
            return text
        # Without bars nothing moves, but coordinates in pixels are refused all the same.
        moved = _COORDINATES.sub(
            lambda match: match.group(1) + self._moved(match.group(2)) + match.group(3), text
        )
        if not self.has_bars:
            return text
        if unknown := _UNKNOWN_COORDINATES.search(_COORDINATES.sub("", text)):
            raise RecordError(
                "coordinates that bars would move",
                f"{unknown.group()!r} may be a place in the image; with --resize=stretch such records can be taken",
            )
        return moved

    def _fit(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        resized = image if image.size == self.inner else image.resize(self.inner, resampling)
        if not self.has_bars:
            return resized
        fitted = Image.new(image.mode, self.target)
        fitted.paste(resized, self.offset)
        return fitted

    def _moved(self, written: str) -> str:
        """A list of numbers x, y, x, y, ... moved, with the same decimals; a list of their names (x1, y1) stays as it is."""
        parts = [part.strip() for part in written.split(",")]
        values = [float(part) for part in parts if re.fullmatch(_NUMBER, part)]
        if any(not 0 <= value <= 1000 for value in values):
            raise RecordError(
                "coordinates in pixels", f"[{written}]; expected 0 to 1000 across the image, as Qwen3-VL's"
            )
        if not values or not self.has_bars:
            return written
        if len(values) != len(parts) or len(parts) not in (2, 4):
            raise RecordError("coordinates that bars would move", f"expected 2 or 4 numbers, got [{written}]")
        moved = []
        for place, (part, value) in enumerate(zip(parts, values, strict=True)):
            axis = place % 2
            place_in_target = self.offset[axis] * 1000 + value * self.inner[axis]
            decimals = len(part.partition(".")[2])
            moved.append(f"{place_in_target / self.target[axis]:.{decimals}f}")
        return ", ".join(moved)


def _one_aspect(size: Size, other: Size) -> bool:
    (width, height), (other_width, other_height) = size, other
    return abs(height * other_width / (width * other_height) - 1) <= _ASPECT_TOLERANCE
