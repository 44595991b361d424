"""Cameras as a dataset describes them: their axes, which depth camera belongs to which RGB camera, and in which unit."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

METRES = {"mm": 0.001, "m": 1.0}
DEPTH_SUFFIX = "_depth"

# Where a feature's info says of which type its depth is, and the types: in metres, without a scale, some maps of each.
DEPTH_TYPE_KEY = "depth_kind"
METRIC, RELATIVE, MIXED = "metric", "relative", "mixed"

# What millimetres never look like: all below 5 cm with some below 9 mm, where LeRobot keeps 0 or 10 mm for "none".
_CLOSE_MILLIMETRES, _NO_MILLIMETRES = 50.0, 9.0
# No sensor of metres counts that far.
_LARGEST_METRES = 1000.0


def depth_key(camera: str) -> str:
    """The depth camera that training pairs with an RGB camera (`pair_depth`)."""
    return camera + DEPTH_SUFFIX


def is_depth(feature: dict[str, Any]) -> bool:
    """Whether a dataset's feature is flagged as depth, by LeRobot's flag or its older one."""
    info = feature.get("info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def depth_type(feature: dict[str, Any]) -> str | None:
    """The type of a depth camera's depth; None where the dataset does not say."""
    return (feature.get("info") or {}).get(DEPTH_TYPE_KEY)


def axes_of(key: str, feature: dict[str, Any]) -> dict[str, int]:
    """Height, width and channels of a camera's pictures, by the names of its axes.

    Args:
        key: Of the camera.
        feature: Its entry in meta/info.json.

    Raises:
        ValueError: The axes have no names, or others.
    """
    names, shape = feature.get("names"), list(feature["shape"])
    plain = (
        ["channels" if name == "channel" else name for name in names]
        if isinstance(names, list | tuple)
        else []
    )
    if sorted(map(str, plain)) != ["channels", "height", "width"] or len(shape) != 3:
        raise ValueError(
            f"{key!r} has shape {shape} and the axes {names!r} in meta/info.json: expected three named axes. Write "
            '"names": ["height", "width", "channels"] there, in the order of the shape.'
        )
    return dict(zip(map(str, plain), shape, strict=True))


def not_flagged(name: str) -> ValueError:
    """What to say of a depth camera that the dataset does not flag as one."""
    return ValueError(
        f"{name!r} is not flagged as depth: expected info.is_depth_map=true in the dataset's meta/info.json. Flag it if it "
        "is depth, rename it if it is not, or leave it out with --policy.cameras.names."
    )


def check_rgb(name: str, feature: dict[str, Any], *, is_asked: bool) -> None:
    """Check that a camera that the vision tower would read is one of RGB.

    Args:
        name: Of the camera.
        feature: Of the dataset.
        is_asked: Whether the user names it among the cameras; else one that is called depth is taken for a forgotten flag.

    Raises:
        ValueError: It has other axes or channels, or is called depth without being flagged.
    """
    channels = axes_of(name, feature)["channels"]
    if channels == 1 or (not is_asked and "depth" in re.split(r"[._/-]", name)):
        raise not_flagged(name)
    if channels != 3:
        raise ValueError(
            f"{name!r} has {channels} channels: expected 3, red, green and blue. Convert its pictures, or leave the camera out "
            "with --policy.cameras.names."
        )


def pair_depth(features: dict[str, dict[str, Any]], asked: dict[str, str] | None) -> dict[str, str]:
    """Find the depth camera of each RGB camera.

    Args:
        features: Of the dataset.
        asked: RGB key -> depth key, or None to pair `X` with `X_depth`.

    Returns:
        RGB key -> depth key; empty if the dataset has no depth and none was asked for.

    Raises:
        ValueError: A depth camera is missing, not flagged, without RGB camera, of another aspect ratio or of unknown unit.
    """
    images = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    if asked is None:
        named = [name for name in images if name.endswith(DEPTH_SUFFIX)]
        flagged = [name for name in images if is_depth(features[name])]
        pairs = {name.removesuffix(DEPTH_SUFFIX): name for name in dict.fromkeys(flagged + named)}
    else:
        pairs = asked
    for rgb, depth in pairs.items():
        if depth not in images:
            raise ValueError(
                f"depth.cameras names {depth!r}, which the dataset lacks: expected one of its images {images}. "
                "--policy.depth.cameras=null takes every camera X that has its X_depth."
            )
        if not is_depth(features[depth]):
            raise not_flagged(depth)
        if rgb not in images or is_depth(features[rgb]):
            raise ValueError(
                f"The depth camera {depth!r} has no RGB camera: expected {rgb!r} in the dataset, which has {images}. "
                'Name its partner with --policy.depth.cameras=\'{"<RGB key>": "' + depth + "\"}'."
            )
        sides = axes_of(rgb, features[rgb])
        depth_sides = axes_of(depth, features[depth])
        height, width = sides["height"], sides["width"]
        depth_height, depth_width = depth_sides["height"], depth_sides["width"]
        if depth_sides["channels"] != 1:
            raise ValueError(
                f"The depth camera {depth!r} has {depth_sides['channels']} channels: expected 1, distances. A depth map that was "
                "stored as a picture in colours can't be read back: record it as 16-bit millimetres, or label the data "
                "(lerobot-gem-label-depth)."
            )
        if abs(height * depth_width / (width * depth_height) - 1) > 0.01:
            raise ValueError(
                f"{depth!r} is {depth_width} x {depth_height} pixels, {rgb!r} {width} x {height}: expected one aspect "
                "ratio, since each pixel of depth must belong to the same place of the image. Crop one of them."
            )
        unit = (features[depth].get("info") or {}).get("depth_unit")
        if unit not in METRES:
            raise ValueError(
                f"The unit of {depth!r} is unknown (info.depth_unit={unit!r}): expected 'mm' or 'm' in the dataset's "
                "meta/info.json, without which LeRobot passes values on as they are."
            )
    return pairs


def check_colormap(features: Mapping[str, dict[str, Any]], cameras: Iterable[str], colormap: str) -> None:
    """Refuse a colormap of metric depth for depth that has no scale.

    Args:
        features: Of the dataset.
        cameras: Its depth cameras that are learned.
        colormap: By which their depth becomes a picture.

    Raises:
        ValueError: A camera's depth is relative, or some of it, and the colormap is "inferno".
    """
    for name in cameras:
        found = depth_type(features[name])
        if colormap == "inferno" and found in (RELATIVE, MIXED):
            part = "some of it" if found == MIXED else "all of it"
            raise ValueError(
                f"depth.colormap='inferno' paints depth, but {name!r} has {found} depth, {part} inverse and without a scale "
                f"(info.{DEPTH_TYPE_KEY} in the dataset's meta/info.json): expected --policy.depth.colormap=spectral, or labels of a "
                "metric model."
            )


def metres(batch: Mapping[str, Tensor], key: str, unit: str) -> Tensor:
    """Depth (B, 1, H, W) in metres.

    Raises:
        ValueError: The key is missing, or the values can't be in `unit`.
    """
    if key not in batch:
        raise ValueError(
            f"The batch lacks {key!r}, which the depth loss needs: expected depth in each training batch."
        )
    depth = batch[key].float()
    largest = depth.nan_to_num(posinf=0).amax().item()
    too_small = largest < _CLOSE_MILLIMETRES and bool(((depth > 0) & (depth < _NO_MILLIMETRES)).any())
    if (unit == "mm" and too_small) or (unit == "m" and largest > _LARGEST_METRES):
        other = "m" if unit == "mm" else "mm"
        raise ValueError(
            f"{key!r} reaches {largest:g}, which can't be {unit}: expected depth in {unit} (--policy.depth.unit). LeRobot "
            f"delivers it in --dataset.depth_output_unit; leave both at mm, or set both to {other}."
        )
    return depth * METRES[unit]
