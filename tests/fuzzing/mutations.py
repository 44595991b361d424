"""Files as accidents and strangers change them: bytes, JSON values, and both at random but the same in each run."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

# What programs stumble over, where anything else was expected.
NASTY = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "\ud800",
    "../../private",
    "/etc/passwd",
    "subprocess.Popen",
    "a" * 70_000,
    "1\n\n" * 5_000,
    "<image>" * 3,
    "<|im_end|>",
    [],
    {},
    [[]] * 3,
    [None],
    {"": None},
    {"type": "gem"},
)


def damaged(data: bytes, random: Random) -> bytes:
    """Bytes with a few changed, cut off, doubled, removed or put in."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        place = random.randrange(len(changed) + 1)
        length = random.choice((1, 1, 4, 16, 200))
        match random.randrange(6):
            case 0:
                changed[place : place + length] = random.randbytes(min(length, len(changed) - place))
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                changed[place:place] = random.randbytes(length)
            case 5:
                changed[place : place + length] = bytes(min(length, len(changed) - place))
    return bytes(changed)


def damaged_json(value: Any, random: Random) -> str:
    """A JSON value with one of its parts replaced, removed, renamed, doubled or buried, or its text damaged."""
    match random.randrange(12):
        case 0:
            return damaged(json.dumps(value).encode(), random).decode(errors="surrogateescape")
        case 1:
            return "[" * random.choice((10, 200_000))
        case _:
            return json.dumps(_replaced(value, random))


def _replaced(value: Any, random: Random) -> Any:
    """A copy with one change, at a place drawn among all."""
    copy = json.loads(json.dumps(value))
    holder, key = random.choice(list(_places(copy)) or [(None, None)])
    if holder is None:
        return random.choice(NASTY)
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(("class", "type", "unknown", str(key) + "2"))] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case 3:
            deep: Any = holder[key]
            for _ in range(random.choice((1, 50, 500))):
                deep = [deep]
            holder[key] = deep
        case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * random.choice((-1, 0, 0.5, 2, 1000, 10**9)) + random.choice((0, 1))
        case 5 if isinstance(holder[key], str):
            holder[key] = damaged(holder[key].encode(), random).decode(errors="replace")
        case _:
            holder[key] = random.choice(NASTY)
    return copy


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])
