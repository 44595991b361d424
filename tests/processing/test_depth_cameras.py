"""Which depth belongs to which camera, and its unit (through policies: tests/policies/gem/test_configuration_gem.py)."""

import pytest
import torch

from lerobot_gem.processing.depth_cameras import axes_of, check_colormap, is_depth, metres, pair_depth

RGB = {"dtype": "image", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
DEPTH = {**RGB, "shape": [48, 64, 1], "info": {"is_depth_map": True, "depth_unit": "mm"}}


def test_depth_is_flagged_in_either_of_lerobots_ways():
    assert is_depth(DEPTH) and is_depth({"info": {"video.is_depth_map": True}})
    assert not is_depth(RGB) and not is_depth({"info": None})


def test_cameras_are_paired_by_name_or_as_asked():
    features = {"front": RGB, "front_depth": DEPTH, "wrist": RGB}
    assert pair_depth(features, None) == {"front": "front_depth"}
    assert pair_depth(features, {"wrist": "front_depth"}) == {"wrist": "front_depth"}
    assert pair_depth({"front": RGB}, None) == {}


@pytest.mark.parametrize(("found", "part"), [("relative", "all"), ("mixed", "some")])
def test_depth_without_a_scale_has_no_colormap_of_metric_depth(found: str, part: str):
    metric, relative = ({**DEPTH, "info": {**DEPTH["info"], "depth_kind": one}} for one in ("metric", found))
    features = {"front": RGB, "front_depth": relative, "wrist": RGB, "wrist_depth": metric}
    check_colormap(features, ["front_depth"], "spectral")
    check_colormap(features, ["wrist_depth"], "inferno")
    with pytest.raises(
        ValueError,
        match=rf"'front_depth' has {found} depth, {part} of it .*expected --policy.depth.colormap=spectral",
    ):
        check_colormap(features, ["wrist_depth", "front_depth"], "inferno")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({**DEPTH, "info": None}, "'front_depth' is not flagged as depth"),
        ({**DEPTH, "shape": [64, 64, 1]}, "'front_depth' is 64 x 64 pixels, 'front' 64 x 48"),
        ({**DEPTH, "info": {"is_depth_map": True}}, "unit of 'front_depth' is unknown"),
    ],
)
def test_depth_that_cannot_be_learned_is_named(feature: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pair_depth({"front": RGB, "front_depth": feature}, None)


@pytest.mark.parametrize(("unit", "largest"), [("mm", 1500.0), ("m", 1.5)])
def test_metres_of_either_unit(unit: str, largest: float):
    depth = torch.full((2, 1, 4, 4), largest)
    torch.testing.assert_close(metres({"d": depth}, "d", unit), torch.full((2, 1, 4, 4), 1.5))


@pytest.mark.parametrize(("unit", "values"), [("mm", 1.5), ("m", 1500.0)])
def test_values_of_the_other_unit_are_named(unit: str, values: float):
    with pytest.raises(ValueError, match=rf"'d' reaches {values:g}, which can't be {unit}"):
        metres({"d": torch.full((1, 1, 4, 4), values)}, "d", unit)
    with pytest.raises(ValueError, match="lacks 'd'"):
        metres({}, "d", unit)


def test_depth_with_three_channels_is_one_sentence():
    axes = ["height", "width", "channels"]
    image = {"dtype": "image", "shape": (8, 8, 3), "names": axes}
    features = {"a": image, "a_depth": {**image, "info": {"is_depth_map": True, "depth_unit": "mm"}}}
    with pytest.raises(ValueError, match="'a_depth' has 3 channels: expected 1, distances"):
        pair_depth(features, None)


@pytest.mark.parametrize(
    "names", [None, [], ["height", "width"], ["y", "x", "c"], {"axes": ["height", "width", "channels"]}]
)
def test_axes_without_right_names(names: object) -> None:
    with pytest.raises(ValueError, match=r'Write "names": \["height", "width", "channels"\] there'):
        axes_of("front", {"shape": (48, 64, 3), "names": names})


def test_axes_are_read_by_name() -> None:
    assert axes_of("front", {"shape": (3, 48, 64), "names": ["channel", "height", "width"]}) == {
        "channels": 3,
        "height": 48,
        "width": 64,
    }
