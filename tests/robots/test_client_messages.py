"""What a client may send, and what is refused before anything that a pickle names is called."""

import pickle
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
from lerobot.transport import services_pb2
from lerobot.utils.feature_utils import hw_to_dataset_features

from lerobot_gem.robots import client_messages
from lerobot_gem.robots.client_messages import bounded, read_instructions, read_observation
from tests.robots.conftest import NAMES


def observation(**changes: Any) -> TimedObservation:
    values: dict[str, Any] = {
        **dict.fromkeys(NAMES, 1.5),
        "front": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
        "wrist": np.zeros((4, 4, 3), np.uint8)[::-1],
        "force": np.float32(2.5),
        "torque": np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        "task": "pick up the cube",
    }
    return TimedObservation(timestamp=12.5, timestep=3, observation={**values, **changes}, must_go=True)


def instructions(**changes: Any) -> RemotePolicyConfig:
    hardware = {**dict.fromkeys(NAMES, float), "front": (4, 4, 3)}
    features = hw_to_dataset_features(hardware, "observation", use_video=False)
    return RemotePolicyConfig(
        **{
            "policy_type": "gem_vla",
            "pretrained_name_or_path": "somewhere",
            "lerobot_features": features,
            "actions_per_chunk": 8,
            **changes,
        }
    )


class Calls:
    """Pickled, it asks for a call when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [4, 5])  # what Python writes since 3.8, and since 3.14
def test_an_unmodified_clients_messages_are_read(protocol: int):
    sent = observation()
    read = read_observation(pickle.dumps(sent, protocol))
    assert (read.timestamp, read.timestep, read.must_go) == (12.5, 3, True)
    assert read.observation.keys() == sent.observation.keys()
    for name, value in sent.observation.items():
        np.testing.assert_array_equal(read.observation[name], value)
        assert type(read.observation[name]) is type(value)
        assert getattr(read.observation[name], "dtype", None) == getattr(value, "dtype", None)
    assert read_instructions(pickle.dumps(instructions(), protocol)) == instructions()


def test_arrays_of_numpy_1_are_read():
    data = pickle.dumps(observation(), 0 + 4).replace(
        b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    )
    # The frame is one byte shorter; without its length the pickle is the same.
    data = data[:2] + data[11:]
    assert b"numpy.core.multiarray" in data
    np.testing.assert_array_equal(
        read_observation(data).observation["front"], observation().observation["front"]
    )


@pytest.mark.parametrize("read", [read_instructions, read_observation])
def test_nothing_that_a_pickle_names_is_called(read: Any, tmp_path: Path):
    touched = tmp_path / "touched"
    for call in (
        Calls(subprocess.Popen, ["touch", str(touched)]),
        Calls(eval, f"open({str(touched)!r}, 'w')"),
        Calls(getattr, observation(), "get_timestep"),
        observation(force=Calls(Path.touch, touched)),
    ):
        with pytest.raises(ValueError, match="only numbers, text and numpy arrays are accepted"):
            read(pickle.dumps(call))
    assert not touched.exists()


def test_lerobots_classes_cannot_be_written_to():
    """A pickle's BUILD sets attributes of what lies before it, of a class as well."""
    name = b"clerobot.async_inference.helpers\nTimedObservation\n"
    attack = b"\x80\x04" + name + b"N}\x8c\x0cget_timestepK\x05s\x86b."
    with pytest.raises(ValueError, match="No TimedObservation of LeRobot's client"):
        read_observation(attack)
    assert read_observation(pickle.dumps(observation())).get_timestep() == 3


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (observation(force=np.array(["text"])), "an array of 'U4': expected numbers"),
        (observation(force=np.array([None])), "an array of 'O8': expected numbers"),
        (observation(force=[1.0]), r"observation\['force'\] is a list"),
        (observation(**{str(number): number for number in range(5000)}), "too many parts"),
        (TimedObservation(timestamp="now", timestep=0, observation={}), "timestamp is a str: expected float"),
        (TimedObservation(timestamp=0.0, timestep=0, observation=[]), "observation is a list: expected dict"),
        (instructions(), "a RemotePolicyConfig with the fields"),
        ({"timestamp": 1}, "No TimedObservation"),
        (None, "No TimedObservation"),
    ],
)
def test_other_values_are_refused(message: Any, said: str):
    with pytest.raises(ValueError, match=said):
        read_observation(pickle.dumps(message))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy_type": None}, "policy_type is a NoneType: expected str"),
        ({"actions_per_chunk": 0}, "actions_per_chunk=0: expected at least 1"),
        ({"lerobot_features": {"observation.state": 3}}, "expected dtype, shape and names"),
        ({"rename_map": None}, "rename_map is a NoneType"),
    ],
)
def test_instructions_are_checked(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        read_instructions(pickle.dumps(instructions(**changes)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04Nr\xff\xff\xff\xff.",  # a place among four billion, for which room is made
        b"\x80\x04})" + 10**6 * b"\x85" + b"Ns.",  # a million tuples, one in the other, as a key
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # a terabyte of bytes
    ],
    ids=["place", "nested", "bytes"],
)
def test_what_would_take_memory_or_stack_is_refused(data: bytes):
    with pytest.raises(ValueError, match="No TimedObservation of LeRobot's client"):
        read_observation(data)


def test_damaged_messages_are_refused_or_read():
    """Bytes that are cut, changed or doubled: an observation, or a ValueError."""
    draw = random.Random(0)
    whole = pickle.dumps(observation())
    refused = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            match draw.randrange(3):
                case 0:
                    data[at] = draw.randrange(256)
                case 1:
                    del data[at : at + draw.randint(1, 40)]
                case _:
                    data[at:at] = data[at : at + draw.randint(1, 40)]
        try:
            read_observation(bytes(data))
        except ValueError:
            refused += 1
    assert refused > 1000


def test_parts_without_end_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_messages, "MAX_OBSERVATION", 10)
    parts = [services_pb2.Observation(data=b"12345") for _ in range(3)]
    assert list(bounded(parts[:2])) == parts[:2]
    with pytest.raises(ValueError, match="Set a smaller width and height"):
        list(bounded(parts))


def test_bytes_that_are_named_many_times_take_no_memory():
    picture = np.zeros(2**20, np.uint8)
    sent = pickle.dumps(observation(**{f"camera{number}": picture for number in range(100)}))
    assert len(sent) < 2**21
    with pytest.raises(ValueError, match="arrays of the observation are larger than 64 MiB"):
        read_observation(sent)
