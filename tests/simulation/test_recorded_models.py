"""What a recorded model's XML says, on a small model without LIBERO."""

from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from lerobot_gem.simulation.recorded_models import RecordedModel

XML = """
<mujoco>
  <worldbody>
    <body name="stove_main" pos="{place}"><geom size="0.1"/>
      <body name="knob"><joint name="knob" axis="0 0 1"/><geom size="0.1"/></body>
    </body>
    <body name="milk_main"><joint name="milk" type="free"/><geom size="0.1"/></body>
  </worldbody>
</mujoco>
"""


def _scene(xml: str) -> Any:
    model = mujoco.MjModel.from_xml_string(xml)
    outside = SimpleNamespace(
        _model=model,
        body_pos=model.body_pos,
        body_quat=model.body_quat,
        body_name2id=lambda name: model.body(name).id,
    )
    fixtures = {"stove": SimpleNamespace(root_body="stove_main")}
    env = SimpleNamespace(sim=SimpleNamespace(model=outside), fixtures_dict=fixtures)
    return SimpleNamespace(env=env, suite="libero_goal", task_id=3)


def test_fixtures_stand_where_they_stood() -> None:
    scene = _scene(XML.format(place="0.1 0.2 0.3"))
    turned = XML.format(place="0.4 0.5 0.6").replace('0.6"', '0.6" quat="0 0 0 1"')
    RecordedModel(turned, "demo_0").place_fixtures(scene)
    body = scene.env.sim.model._model.body("stove_main")
    np.testing.assert_array_equal(body.pos, [0.4, 0.5, 0.6])
    np.testing.assert_array_equal(body.quat, [0, 0, 0, 1])
    with pytest.raises(ValueError, match="demo_0 has no body 'stove_main', which the installed LIBERO has"):
        RecordedModel(turned.replace("stove_main", "cabinet_main"), "demo_0").place_fixtures(scene)


def test_another_model_is_refused() -> None:
    scene = _scene(XML.format(place="0 0 0"))
    size = 1 + (1 + 7) + (1 + 6)
    RecordedModel(XML.format(place="0 0 0"), "demo_0").check(scene, size)
    with pytest.raises(ValueError, match=rf"2 joints and states of 9 numbers, but there are 2 and {size}"):
        RecordedModel(XML.format(place="0 0 0"), "demo_0").check(scene, 9)
    with pytest.raises(ValueError, match=r"'knob' in one alone, 'tap' in one alone. Is this the file"):
        RecordedModel(XML.format(place="0 0 0").replace('"knob" axis', '"tap" axis'), "demo_0").check(
            scene, size
        )


def test_what_is_no_model() -> None:
    with pytest.raises(ValueError, match="The model of demo_0 is no XML"):
        RecordedModel("<mujoco>", "demo_0")
    with pytest.raises(ValueError, match="The model of demo_0 has no worldbody"):
        RecordedModel("<mujoco/>", "demo_0")
