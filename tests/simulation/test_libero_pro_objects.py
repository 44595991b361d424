"""Objects of LIBERO-PRO that hf-libero has no classes for."""

from pathlib import Path

import pytest

from lerobot_gem.simulation.libero_pro_objects import categories, register_objects

BDDL = "(:fixtures\n floor - floor\n a_1 - yellow_cabinet)\n(:objects\n b_1 b_2 - Red_Basket\n c_1 - milk)"


def test_categories_of_a_definition() -> None:
    assert categories(BDDL) == {"floor", "yellow_cabinet", "red_basket", "milk"}


@pytest.mark.libero
def test_missing_classes_are_made(libero: Path, tmp_path: Path) -> None:
    file = tmp_path / "task.bddl"
    file.write_text(BDDL)
    register_objects([file])
    register_objects([file])
    from libero.libero.envs.objects import get_object_fn

    basket = get_object_fn("red_basket")(name="red_basket_1")
    assert basket.root_body == "red_basket_1_main" and basket.category_name == "red_basket"
    cabinet = get_object_fn("yellow_cabinet")(name="yellow_cabinet_1", joints=None)
    assert cabinet.is_close(0.004) is True and cabinet.is_open(-0.15) is True
    file.write_text("(:objects d_1 - red_box)")
    with pytest.raises(ValueError, match="lack red_box"):
        register_objects([file])
