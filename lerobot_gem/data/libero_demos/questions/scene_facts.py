"""What is true in a simulated scene, and what a camera shows of it.

Everything that questions are made from is here, read from the simulator's state and from a segmentation that is drawn
for the purpose; the questions themselves know no simulator.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.naming import display_name
from lerobot_gem.simulation.cameras import Camera
from lerobot_gem.simulation.rendering import flip
from lerobot_gem.simulation.scene import CAMERAS, LiberoScene, rotation
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace
from lerobot_gem.simulation.subtasks import STEPS

# An object counts as visible from this many pixels on, if they are at least this share of its outline's area: the convex
# outline of its bounding box, which a bottle that stands free fills by half.
LEAST_PIXELS, LEAST_SHARE = 12, 0.25
# In `View.labels`: neither an object nor the gripper, and the gripper.
OTHER, GRIPPER = -1, -2

_CATEGORIES = {
    "can": ("alphabet soup", "tomato sauce"),
    "bottle": ("bbq sauce", "ketchup", "salad dressing"),
    "carton": ("milk", "orange juice"),
    "box": ("butter", "cream cheese", "chocolate pudding", "cookie box"),
    "bowl": ("black bowl",),
}
_CATEGORY_OF = {name: category for category, names in _CATEGORIES.items() for name in names}


@dataclass(frozen=True)
class Thing:
    """A movable object.

    Attributes:
        name: What it is called, e.g. "milk".
        centre: (3,) of its bounding box, metres in the world.
        unique: No other object has its name.
        category: "can", "bottle", "carton", "box", "bowl" or None.
    """

    name: str
    centre: NDArray[np.float64]
    unique: bool = True
    category: str | None = None


@dataclass(frozen=True)
class View:
    """What one camera shows.

    Attributes:
        key: Of the camera in the dataset.
        camera: Its geometry.
        labels: (H, W) int16 as datasets store images: the number of the object in each pixel, `GRIPPER` or `OTHER`.
        visible: Numbers of the objects that can be recognised.
        complete: No object shows too little of itself to be recognised; what is not in `visible` is not in the image.
        gripper: The gripper can be recognised.
        grasp: (2,) column and row of the middle of the pixel where the scripted policy would grip; None when that is not
            to be seen.
    """

    key: str
    camera: Camera
    labels: NDArray[np.int16]
    visible: tuple[int, ...]
    complete: bool
    gripper: bool
    grasp: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SceneFacts:
    """What is true at one moment.

    Attributes:
        things: The movable objects; others refer to them by number.
        views: Of the cameras.
        gripper: (3,) the point between the finger tips, metres in the world.
        task: The instruction.
        named: The objects that the task names.
        target: The one that the scripted policy grips; None without a scripted policy.
        subtasks: What to do in each step, e.g. "Lift the milk.".
        step: Which of them is being done.
    """

    things: tuple[Thing, ...]
    views: tuple[View, ...]
    gripper: NDArray[np.float64]
    task: str
    named: tuple[int, ...]
    target: int | None
    subtasks: tuple[str, ...] = ()
    step: int = 0


class Observer:
    """Reads `SceneFacts` from a scene.

    Args:
        scene: The scene.
        policy: The scripted policy of its task; None where there is none.
    """

    def __init__(self, scene: LiberoScene, policy: ScriptedPickAndPlace | None):
        self.scene, self.policy = scene, policy
        self.names = [display_name(name) for name in scene.objects]
        self.target = None if policy is None else scene.objects.index(policy.target)
        self._label_of = self._labels_of_geoms()
        poses, shapes = scene.rest
        signs = np.stack(np.meshgrid(*[(0, 1)] * 3), -1).reshape(-1, 3)
        # (objects, 8, 3) corners of the bounding boxes at rest, and the inverse of the rotation there.
        self._corners = np.stack([np.where(signs, shapes[n].high, shapes[n].low) for n in scene.objects])
        self._unturned = np.stack([rotation(poses[n][3:]).T for n in scene.objects])
        self._bodies = [scene.env.obj_body_id[name] for name in scene.objects]

    def _labels_of_geoms(self) -> NDArray[np.int16]:
        """(geoms + 1,) the label of each shape; the last one for pixels without a shape."""
        model = self.scene.env.sim.model._model
        labels = np.full(model.ngeom + 1, OTHER, np.int16)
        roots = model.body_rootid[model.geom_bodyid]
        for number, name in enumerate(self.scene.objects):
            labels[:-1][roots == self.scene.env.obj_body_id[name]] = number
        fingers = [model.body(body).name.startswith("gripper0") for body in model.geom_bodyid]
        labels[:-1][fingers] = GRIPPER
        return labels

    def facts(self, named: tuple[int, ...], step: int | None) -> SceneFacts:
        """The present facts but for sub-tasks, with one segmentation drawn for each camera.

        Args:
            named: See `SceneFacts`.
            step: Which of `subtasks.STEPS` the scripted policy is at; None without one.
        """
        data = self.scene.env.sim.data._data
        turned = data.xmat[self._bodies].reshape(-1, 3, 3) @ self._unturned
        corners = self._corners @ turned.transpose(0, 2, 1) + data.xpos[self._bodies][:, None]
        centres = corners.mean(1)
        things = tuple(
            Thing(name, centre, self.names.count(name) == 1, _CATEGORY_OF.get(name))
            for name, centre in zip(self.names, centres, strict=True)
        )
        grasp = None
        if self.policy is not None and step is not None and step <= STEPS.index("grasp"):
            grasp = self.policy.grasp_point()
        return SceneFacts(
            things=things,
            views=tuple(self._view(key, name, corners, grasp) for key, name in CAMERAS.items()),
            gripper=self.scene.eef_position,
            task=self.scene.instruction,
            named=named,
            target=self.target,
        )

    def _view(
        self, key: str, name: str, corners: NDArray[np.float64], grasp: NDArray[np.float64] | None
    ) -> View:
        camera, segmentation = self.scene.renderer.camera(name), self.scene.renderer.segment(name)
        labels = flip(self._label_of[segmentation.geoms])
        counts = np.bincount(labels.ravel() - GRIPPER, minlength=len(corners) - GRIPPER)
        shown = counts[-GRIPPER:]
        pixels, depth = camera.project(corners)
        visible = tuple(
            int(number)
            for number in np.flatnonzero(shown >= LEAST_PIXELS)
            if depth[number].min() > 0 and shown[number] >= LEAST_SHARE * _outline_area(pixels[number])
        )
        return View(
            key=f"observation.images.{key}",
            camera=camera,
            labels=labels,
            visible=visible,
            complete=set(np.flatnonzero(shown)) == set(visible),
            gripper=bool(counts[0] >= LEAST_PIXELS),
            grasp=None
            if grasp is None
            else self._seen_grasp(camera, labels, flip(segmentation.depth), grasp),
        )

    def _seen_grasp(
        self,
        camera: Camera,
        labels: NDArray[np.int16],
        depth: NDArray[np.float32],
        grasp: NDArray[np.float64],
    ) -> NDArray[np.float64] | None:
        """(2,) where a point in the target is in the image; None when something else is there, or another side."""
        pixel, distance = camera.project(grasp)
        column, row = np.floor(pixel).astype(int)
        if distance <= 0 or not (0 <= row < camera.height and 0 <= column < camera.width):
            return None
        assert self.policy is not None
        # The point is inside of the object, or in a bowl's rim, which its other side may hide.
        within = self.policy.shape.size[:2].max() / 2 + 0.01
        if labels[row, column] != self.target or distance - depth[row, column] > within:
            return None
        return np.array([column + 0.5, row + 0.5])


def _outline_area(pixels: NDArray[np.float64]) -> float:
    """Area of the convex hull of points (N, 2)."""
    import cv2

    return float(cv2.contourArea(cv2.convexHull(pixels.astype(np.float32))))
