"""Which image transforms move pixels, and where that matters."""

from pathlib import Path

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.transforms import ImageTransforms, ImageTransformsConfig
from lerobot.transforms.transforms import ImageTransformConfig
from torchvision.transforms import v2

from lerobot_gem.processing.image_transforms import check_transforms, moving, transforms_of


def lerobots(**types: str) -> ImageTransforms:
    kwargs = {"RandomResizedCrop": {"size": (64, 64)}, "RandomAffine": {"degrees": 5}}
    tfs = {name: ImageTransformConfig(type=kind, kwargs=kwargs.get(kind, {})) for name, kind in types.items()}
    return ImageTransforms(ImageTransformsConfig(enable=True, tfs=tfs))


def test_of_lerobots_defaults_affine_moves_pixels() -> None:
    assert moving(ImageTransforms(ImageTransformsConfig(enable=True))) == ["affine"]
    assert moving(None) == []


def test_transforms_that_are_not_known_count_as_moving() -> None:
    assert moving(
        lerobots(crop="RandomResizedCrop", flip="RandomHorizontalFlip", grey="RandomGrayscale")
    ) == ["crop", "flip"]
    assert moving(v2.RandomRotation(5)) == ["RandomRotation"]
    assert moving(lambda image: image) == ["function"]
    assert moving(v2.ColorJitter(0.1)) == []


def test_transforms_are_those_of_the_dataset_that_holds_the_metadata(dataset_root: Path) -> None:
    plain = LeRobotDataset("local/noise", root=dataset_root)
    turned = LeRobotDataset("local/noise", root=dataset_root, image_transforms=lerobots(turn="RandomAffine"))
    assert transforms_of(plain.meta) is None
    assert transforms_of(turned.meta) is turned.image_transforms
    check_transforms(plain.meta, "depth")
    with pytest.raises(ValueError, match=r"moves pixels \(turn\), but depth stays where it is: .*tfs"):
        check_transforms(turned.meta, "depth")
