"""The model that a demonstration was recorded with, and a scene that is made to agree with it.

LIBERO draws the places of fixtures (a cabinet, a stove) within a centimetre or so whenever it builds a model; no state
holds them, only the model's XML. The paths of meshes in that XML are those of the recorder's disk: nothing else is
taken from it.
"""

import xml.etree.ElementTree as ET

import numpy as np

from lerobot_gem.simulation.scene import LiberoScene


class RecordedModel:
    """What the XML of a recorded model says.

    Args:
        xml: As MuJoCo saves models.
        name: Of the recording, for messages.

    Raises:
        ValueError: It is no MuJoCo model.
    """

    def __init__(self, xml: str, name: str):
        self.name = name
        try:
            world = ET.fromstring(xml).find("worldbody")  # nosec B314
        except ET.ParseError as error:
            raise ValueError(f"The model of {name} is no XML: {error}.") from error
        if world is None:
            raise ValueError(f"The model of {name} has no worldbody: expected the XML of a MuJoCo model.")
        self._bodies = {body.get("name"): body for body in world.findall("body")}
        # In the document's order, which is MuJoCo's.
        self._joints = [joint.get("name") for joint in world.iter() if joint.tag in ("joint", "freejoint")]

    def check(self, scene: LiberoScene, state_size: int) -> None:
        """Check that a scene has the joints that this model had, in their order, hence the same states.

        Args:
            scene: The scene.
            state_size: Of a recorded state.

        Raises:
            ValueError: It has not.
        """
        model = scene.env.sim.model._model
        joints = [model.joint(number).name for number in range(model.njnt)]
        size = 1 + model.nq + model.nv
        if joints == self._joints and state_size == size:
            return
        apart = [f"{name!r} in one alone" for name in sorted(set(joints) ^ set(self._joints), key=str)]
        raise ValueError(
            f"{self.name} was recorded with another model than the installed LIBERO builds for {scene.suite} task "
            f"{scene.task_id}: {len(self._joints)} joints and states of {state_size} numbers, but there are {len(joints)} and "
            f"{size}; {', '.join(apart[:4]) or 'the joints have another order'}. Is this the file of that task? Its states can "
            "be replayed only with a version of LIBERO that builds the same model."
        )

    def place_fixtures(self, scene: LiberoScene) -> None:
        """Put the fixtures of a scene where they were when it was recorded; takes effect with the next state.

        Raises:
            ValueError: This model has no such fixture.
        """
        model = scene.env.sim.model
        for fixture in scene.env.fixtures_dict.values():
            body = self._bodies.get(fixture.root_body)
            if body is None:
                raise ValueError(
                    f"The model of {self.name} has no body {fixture.root_body!r}, which the installed LIBERO has in "
                    f"{scene.suite} task {scene.task_id}."
                )
            index = model.body_name2id(fixture.root_body)
            model.body_pos[index] = np.array(body.get("pos", "0 0 0").split(), np.float64)
            model.body_quat[index] = np.array(body.get("quat", "1 0 0 0").split(), np.float64)
