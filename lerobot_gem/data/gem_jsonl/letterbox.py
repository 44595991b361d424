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
# A name in the place of a number, as in "Report [x1, y1, x2, y2]".
_NAME = re.compile(r"""["']?[A-Za-z_]\w*["']?|\.\.\.|""")

# What else may be a place in the image. Other trainers write boxes and points in many ways, and which of them a text means
# can't be known, so this looks for all of them, and rather finds too much.
# Digits are taken at once (++), and white space belongs to a number only with what follows it, so that a long text can be read
# in one way and costs no hours.
_ANY = r"""["']?(?<![\d.])[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:e[-+]?\d++)?(?:\s?(?:%|px))?(?:\s?["'])?"""
_GAP = r"(?:\s*[,;，；、|]\s*|\s+)"
_SIDE = r"(?:left|top|right|bottom|upper|lower)"
_UNKNOWN_COORDINATES = re.compile(
    "|".join(
        (
            # Two, four or more numbers in brackets: (0.25, 0.5), [100 200 300 400], polygons. Three are metres.
            rf"[(\[<{{（【［]\s*{_ANY}(?:{_GAP}{_ANY}|(?:{_GAP}{_ANY}){{3,}}){_GAP}?\s*[)\]>}}）】］]",
            # Tags, and tokens for numbers: <box>, <|point_start|>, <loc0123>, <bin_7>, <patch_index_0044>, <12><34>.
            r"<[|/]*(?:point|box|bbox|quad|poly|loc|coord|bin|seg|patch_index|[xy][_\d])",
            r"<\d+>\s*<\d+>",
            # Names with a number: "x": 12, xmin=12, cx: 0.5, left=100, x_center 0.5. "Left: 3 cups" is found as well.
            rf"""\b(?:c?[xyuv]\d?|[xy]_?(?:min|max|center|centre|left|right|top|bottom)|(?:min|max)_?[xy]|{_SIDE})["']?\s*[:=]\s*{_ANY}""",
            rf"\b(?:[xy]_?(?:min|max)|x_?cent(?:er|re)|y_?cent(?:er|re))\s+{_ANY}",
            rf"\b[xyuv](?:[- ]coordinate)?\s+(?:is|at|of)\s+{_ANY}",
            rf"\b(?:coordinates?|pixels?|bbox\w*|bounding box|keypoints?)\b\W*(?:(?:are|is|at|of)\W+)?{_ANY}",
            # Shares of the image, and pixels: 12% from the left, 34 px.
            rf"{_ANY}\s*(?:percent|pixels?)?\s+(?:from|of)\s+the\s+(?:{_SIDE}|image|picture|width|height)",
            rf"\b(?:per\s?cent|pixels?)\s+(?:from|of)\s+the\s+(?:{_SIDE}|image|picture|width|height)",
            r"(?<!\d)\d+(?:\.\d+)?\s*(?:px|pixels?)\b",
            # Without brackets: shares, four numbers, or a text that is nothing but numbers.
            rf"\d%{_GAP}(?:and\s+)?{_ANY}",
            r"(?<![\d.])(?<!\d, )(?<!\d,)0?\.\d+\s*[,;]\s*0?\.\d++(?!\s*[,;]\s*[\d.])",
            rf"\bat\s+{_ANY}\s*[,;]\s*{_ANY}",
            rf"(?<![\w.]){_ANY}(?:\s*[,;]\s*{_ANY}){{3,}}",
            rf"\A\s*{_ANY}(?:{_GAP}{_ANY}|(?:{_GAP}{_ANY}){{3,}})\s*\Z",
        )
    ),
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
        for unknown in _UNKNOWN_COORDINATES.finditer(_COORDINATES.sub("", text)):
            if self.has_bars:
                raise RecordError(
                    "coordinates that bars would move",
                    f"{unknown.group()!r} may be a place in the image; with --resize=stretch such records can be taken",
                )
            if any(float(number) > 1000 for number in re.findall(r"\d+\.?\d*", unknown.group())):
                raise RecordError(
                    "coordinates in pixels",
                    f"{unknown.group()!r} may be a place in the image; expected 0 to 1000 across it, or --image_size as it is",
                )
        return moved if self.has_bars else text

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
        if not self.has_bars or all(_NAME.fullmatch(part) for part in parts):
            return written
        if len(values) != len(parts) or len(parts) not in (2, 4):
            raise RecordError(
                "coordinates that bars would move",
                f"expected 2 or 4 numbers, got [{written}]; with --resize=stretch such records can be taken",
            )
        is_share = max(values) <= 1 and any("." in part for part in parts)
        is_turned = len(values) == 4 and (values[2] < values[0] or values[3] < values[1])
        if is_share or is_turned:
            raise RecordError(
                "coordinates that bars would move",
                f"expected thousandths of the image, left, top, right and bottom, got [{written}], which may be "
                f"{'shares of it' if is_share else 'a corner with width and height'}; with --resize=stretch such records can be taken",
            )
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
