"""What LeRobot's async client sends, read from pickles without running them.

LeRobot's server unpickles what comes, and a pickle may call any function that it names. An unmodified client sends two classes
of LeRobot's, numbers, text and arrays. Here each class and function that such a message names is stood in for by one of ours that
keeps what it is given; all else is refused. numpy rebuilds arrays from bytes, and not from a pickle, which can give it a wrong type.
"""

import io
import pickle
import pickletools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
from numpy.typing import NDArray

# Of one observation, in bytes: four cameras of 1920 x 1080 are 25 MB.
MAX_OBSERVATION = 64 * 2**20
# Of a pickle: an arm with two cameras takes 130. Deeply nested tuples overflow the stack of whoever compares them.
_MAX_OPERATIONS = 10_000

_MESSAGES = {"RemotePolicyConfig": RemotePolicyConfig, "TimedObservation": TimedObservation}
# Of numbers: bool, int, unsigned int, float.
_KINDS = "biuf"


@dataclass
class _DType:
    """A pickled `numpy.dtype`: its code, such as "u1", and its byte order."""

    code: Any
    order: Any = "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = state[1]

    def build(self) -> np.dtype:
        if not isinstance(self.code, str) or self.code[:1] not in _KINDS:
            raise ValueError(f"an array of {self.code!r}: expected numbers")
        return np.dtype(self.code).newbyteorder(self.order)


@dataclass
class _Array:
    """A pickled array or number of numpy's.

    Attributes:
        shape: Its sizes; () of a number.
        dtype: Of its numbers.
        data: Their bytes.
        is_fortran: Whether the first axis is the one whose numbers are side by side.
    """

    shape: Any = ()
    dtype: Any = None
    data: Any = b""
    is_fortran: Any = False

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.data = state

    def build(self) -> NDArray[Any] | np.generic:
        dtype = self.dtype.build()
        if not isinstance(self.data, bytes | bytearray):
            raise ValueError(f"an array of a {type(self.data).__name__}: expected bytes")
        flat = np.frombuffer(bytearray(self.data), dtype)
        return flat.reshape(self.shape, order="F" if self.is_fortran else "C")[()]


class _Unpickler(pickle.Unpickler):
    """Puts stand-ins, new ones for each name, since a pickle may write to what it names."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "lerobot.async_inference.helpers" and name in _MESSAGES:
            return type(name, (), {})
        # numpy 2 says _core where numpy 1 says core.
        match module.replace("numpy.core", "numpy._core"), name:
            case "numpy", "ndarray":
                return "ndarray"
            case "numpy", "dtype":
                return lambda code, *_: _DType(code)
            case "numpy._core.multiarray", "_reconstruct":
                return lambda *_: _Array()
            case "numpy._core.multiarray", "scalar":
                return lambda dtype, data: _Array((), dtype, data)
            case "numpy._core.numeric", "_frombuffer":
                return lambda data, dtype, shape, order: _Array(shape, dtype, data, order == "F")
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, and only numbers, text and numpy arrays are accepted"
        )


def _check_operations(data: bytes) -> None:
    """Refuse what would take memory or stack without end while it is read.

    Raises:
        pickle.UnpicklingError: It is no pickle, or would.
    """
    for number, (operation, argument, _) in enumerate(pickletools.genops(data)):
        # Room is made for all places up to the one that is named.
        is_far = "PUT" in operation.name and (argument or 0) > _MAX_OPERATIONS
        if number > _MAX_OPERATIONS or is_far:
            raise pickle.UnpicklingError("it is made of too many parts")


def read_instructions(data: bytes) -> RemotePolicyConfig:
    """The policy that a client asks for.

    Args:
        data: A pickled `RemotePolicyConfig`.

    Raises:
        ValueError: It is something else, or its fields are not what they should be.
    """
    fields = _fields(
        data,
        "RemotePolicyConfig",
        policy_type=str,
        pretrained_name_or_path=str,
        device=str,
        actions_per_chunk=int,
        rename_map=dict,
        lerobot_features=dict,
    )
    if fields["actions_per_chunk"] < 1:
        raise ValueError(
            f"actions_per_chunk={fields['actions_per_chunk']}: expected at least 1. Give --actions_per_chunk."
        )
    for name, feature in fields["lerobot_features"].items():
        if not isinstance(feature, dict) or not {"dtype", "shape", "names"} <= feature.keys():
            raise ValueError(f"lerobot_features[{name!r}]: expected dtype, shape and names.")
    return RemotePolicyConfig(**fields)


def read_observation(data: bytes) -> TimedObservation:
    """What a client's robot observed.

    Args:
        data: A pickled `TimedObservation`.

    Raises:
        ValueError: It is something else, or its fields are not what they should be.
    """
    fields = _fields(data, "TimedObservation", timestamp=float, timestep=int, must_go=bool, observation=dict)
    values = {}
    size = 0
    for name, value in fields["observation"].items():
        _check_type("a name in the observation", name, str)
        if not isinstance(value, int | float | str | _Array):
            raise ValueError(
                f"observation[{name!r}] is a {type(value).__name__}: expected a number, text or a numpy array."
            )
        # A pickle may name the same bytes again and again, each of which becomes an array of its own.
        size += (
            len(value.data) if isinstance(value, _Array) and isinstance(value.data, bytes | bytearray) else 0
        )
        if size > MAX_OBSERVATION:
            raise ValueError(f"The arrays of the observation are larger than {MAX_OBSERVATION // 2**20} MiB.")
        try:
            values[name] = value.build() if isinstance(value, _Array) else value
        except Exception as error:
            raise ValueError(f"observation[{name!r}] can't be read: {error}.") from error
    return TimedObservation(**{**fields, "observation": values})


def bounded[Message](messages: Iterable[Message]) -> Iterator[Message]:
    """The parts of an observation, up to `MAX_OBSERVATION` bytes of `data`.

    Raises:
        ValueError: There are more.
    """
    size = 0
    for message in messages:
        size += len(message.data)  # type: ignore[attr-defined]
        if size > MAX_OBSERVATION:
            raise ValueError(
                f"The observation is larger than {MAX_OBSERVATION // 2**20} MiB. Set a smaller width and height in --robot.cameras."
            )
        yield message


def _fields(data: bytes, name: str, **types: type) -> dict[str, Any]:
    """The fields of a pickled message, those of `types` being of these."""
    try:
        _check_operations(data)
        message = _Unpickler(io.BytesIO(data)).load()
        fields = dict(vars(message))
    except Exception as error:  # damaged pickles raise whatever they like
        raise ValueError(f"No {name} of LeRobot's client: {type(error).__name__}: {error}.") from error
    expected = _MESSAGES[name].__dataclass_fields__.keys()
    if type(message).__name__ != name or fields.keys() != expected:
        raise ValueError(
            f"No {name} of LeRobot's client: a {type(message).__name__} with the fields {sorted(map(str, fields))}, expected "
            f"{sorted(expected)}. Use the client of LeRobot 0.6."
        )
    for field, wanted in types.items():
        _check_type(field, fields[field], wanted)
    return fields


def _check_type(name: str, value: Any, expected: type) -> None:
    if not isinstance(value, expected):
        raise ValueError(f"{name} is a {type(value).__name__}: expected {expected.__name__}.")
