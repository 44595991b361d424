"""Other people's names: recognised, and told with the command that renames them."""

import pytest

from lerobot_gem.processing.dataset_names import check_names, expected_names, left_out, rename_command

IMAGE = {"dtype": "image", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
DEPTH = {**IMAGE, "shape": (64, 64, 1), "info": {"is_depth_map": True}}
VECTOR = {"dtype": "float32", "shape": (7,), "names": None}
OPENPI = {"image": IMAGE, "wrist_image": IMAGE, "state": VECTOR, "actions": VECTOR}
OURS = {"observation.images.front": IMAGE, "observation.state": VECTOR, "action": VECTOR}


def test_openpis_keys() -> None:
    names = {
        "image": "observation.images.image",
        "wrist_image": "observation.images.wrist_image",
        "state": "observation.state",
        "actions": "action",
    }
    assert expected_names(OPENPI) == names
    with pytest.raises(ValueError) as error:
        check_names(OPENPI, needs_action=True)
    for part in ("'image'", "'actions'", "'observation.images.image'", "'action'", "--rename_map can't"):
        assert part in str(error.value)
    assert rename_command(names) in str(error.value)


@pytest.mark.parametrize(
    ("features", "names"),
    [
        (OURS, {}),
        (OURS | {"state": VECTOR, "actions": VECTOR}, {}),
        (OURS | {"top_image": IMAGE}, {"top_image": "observation.images.top_image"}),
        ({"observation/image": IMAGE}, {"observation/image": "observation.images.image"}),
        ({"image_depth": DEPTH}, {}),
        # Depth would have no RGB camera if it kept its name.
        (
            {"cam/image": IMAGE, "cam/image_depth": DEPTH},
            {
                "cam/image": "observation.images.image",
                "cam/image_depth": "observation.images.image_depth",
            },
        ),
        # Two cameras, or one and another that is there, never get one name.
        (
            {"left.image": IMAGE, "left.image_depth": DEPTH, "observation/images/right/image": IMAGE},
            {
                "left.image": "observation.images.left_image",
                "left.image_depth": "observation.images.left_image_depth",
                "observation/images/right/image": "observation.images.right_image",
            },
        ),
        (OURS | {"wrist/front": IMAGE}, {"wrist/front": "observation.images.wrist_front"}),
        (
            {"action.joint_position": VECTOR, "observation.state.joint": VECTOR},
            {"observation.state.joint": "observation.state", "action.joint_position": "action"},
        ),
        # Which of them, or in which order, can't be known.
        ({"action.joint_position": VECTOR, "action.gripper": VECTOR}, {}),
    ],
)
def test_names_that_are_expected(features: dict, names: dict) -> None:
    assert expected_names(features) == names


def test_only_what_is_missing_is_refused() -> None:
    check_names(OURS | {"top_image": IMAGE}, needs_action=True)
    without_action = {name: OURS[name] for name in ("observation.images.front", "observation.state")}
    check_names(without_action | {"actions": VECTOR}, needs_action=False)
    with pytest.raises(ValueError, match="names 'actions' what LeRobot's policies read as 'action'"):
        check_names(without_action | {"actions": VECTOR}, needs_action=True)


@pytest.mark.parametrize("name", ["left.image", "left.image_depth"])
def test_a_camera_that_is_left_out_is_renamed_with_its_depth_and_to_no_others_name(name: str) -> None:
    names = {
        "left.image": "observation.images.left_image",
        "left.image_depth": "observation.images.left_image_depth",
    }
    said = left_out(name, ["left.image", "right.image", "left.image_depth"])
    assert said.startswith(f"The camera {name!r} is left out") and rename_command(names) in said
    assert rename_command({"extra": "observation.images.extra"}) in left_out("extra", ["extra"])
