"""LeRobot's image transforms, some of which move pixels.

LeRobot transforms RGB frames alone. One that moves pixels takes a picture away from its depth map and from the coordinates
in its questions.
"""

import gc
from collections.abc import Iterable, Mapping
from typing import Any

# Those of torchvision and of LeRobot that leave each pixel in its place. Any other counts as moving pixels.
_PHOTOMETRIC = {
    "CoarseDropout",
    "ColorJitter",
    "GammaCorrection",
    "GaussianBlur",
    "GaussianNoise",
    "GaussianPatchBrightness",
    "Grayscale",
    "Identity",
    "JPEG",
    "JPEGCompression",
    "MotionBlur",
    "PlanckianJitter",
    "RandomAdjustSharpness",
    "RandomAutocontrast",
    "RandomChannelPermutation",
    "RandomEqualize",
    "RandomErasing",
    "RandomGrayscale",
    "RandomInvert",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomShadow",
    "RandomSolarize",
    "SharpnessJitter",
}


def transforms_of(meta: Any) -> Any:
    """The image transforms of the dataset that is open with this metadata, or None.

    LeRobot tells a policy the metadata of its dataset, and nothing of the transforms, which the dataset holds beside it. So
    the dataset is looked for among the holders of the metadata.
    """
    for holder in gc.get_referrers(meta):
        values = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
        if values.get("meta") is meta and values.get("image_transforms") is not None:
            return values["image_transforms"]
    return None


def moving(transforms: Any) -> list[str]:
    """Names of the transforms that move pixels.

    Args:
        transforms: LeRobot's `ImageTransforms`, or any other callable; None for none.
    """
    if transforms is None:
        return []
    parts: Mapping[str, Any] = getattr(transforms, "transforms", None) or {}
    named: Iterable[tuple[str, Any]] = (
        parts.items() if isinstance(parts, Mapping) and parts else [(type(transforms).__name__, transforms)]
    )
    return [name for name, part in named if type(part).__name__ not in _PHOTOMETRIC]


def check_transforms(meta: Any, learned: str) -> None:
    """Raise a ValueError if the dataset's image transforms move pixels.

    Args:
        meta: `LeRobotDatasetMetadata` of an open dataset.
        learned: What would no longer fit the pictures, such as "depth".
    """
    names = moving(transforms_of(meta))
    if names:
        entries = ", ".join(f'"{name}": {{"weight": 0}}' for name in names)
        raise ValueError(
            f"dataset.image_transforms moves pixels ({', '.join(names)}), but {learned} stays where it is: expected transforms of "
            "colour alone. Leave these out of dataset.image_transforms.tfs, as configs/policy/gem_vla_2b_depth.yaml does, set "
            f"their weight to 0 ({entries}), or --dataset.image_transforms.enable=false."
        )
