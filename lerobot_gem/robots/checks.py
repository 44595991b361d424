"""What is compared before an arm acts: each check adds to the findings, and asks no device."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.inference.control_rate import check_trained_rate
from lerobot_gem.inference.motor_order import why_not_in_order
from lerobot_gem.robots.findings import Preflight
from lerobot_gem.robots.training_facts import Array

# Of the range of the training data: what lies farther outside is named.
_MARGIN = 0.1
# Of the same: an action as far outside is nothing that was ever done.
_FAR = 0.5
# Numbers that differ by as little are the same: a range of this size is that of one that stands still.
_STILL = 1e-6
# How much more alike another camera's training pictures must be before cameras are called exchanged.
_MORE_ALIKE = 0.1
# How much less alike than the odd one out of the training pictures a picture may be.
_LIKENESS_MARGIN = 0.1
# Side of the pictures that are compared, in pixels.
_THUMBNAIL = 16
# Ticks of reserve that a queue of actions should hold when the next chunk arrives.
_RESERVE = 2


def check_task(found: Preflight, task: str, default: str, trained: Sequence[str]) -> None:
    """Is there a text, and is it one that the policy knows?"""
    if not task.strip():
        if default:
            found.add(
                "task", "ok", f"No --task: the policy acts on {default!r}, the one that it was trained on."
            )
        else:
            known = ", ".join(map(repr, trained[:5]))
            wanted = (
                f"--task with one of the training data's: {known}"
                if known
                else "one sentence, such as --task='pick up the cube'"
            )
            found.add("task", "error", f"No task text: give {wanted}.")
    elif trained and task not in trained:
        shown = ", ".join(map(repr, trained[:5]))
        found.add(
            "task",
            "warning",
            f"{task!r} is none of the {len(trained)} task(s) of the training data: {shown}.",
        )
    else:
        found.add("task", "ok", repr(task) + ("" if trained else "; the training data's are not known."))


def check_rate(found: Preflight, fps: float, trained: float | None) -> None:
    """Are actions executed at the rate at which they were recorded?"""
    if trained is None:
        found.add("fps", "warning", f"{fps:g} Hz; the rate of the training data is not known.")
        return
    try:
        check_trained_rate(trained)
    except ValueError as error:
        found.add("fps", "error", str(error))
        return
    if fps != trained:
        found.add(
            "fps",
            "error",
            f"{fps:g} Hz, but the training data has {trained:g}: the arm would move {fps / trained:.2g} times as fast. Give --fps={trained:g}.",
        )
    else:
        found.add("fps", "ok", f"{fps:g} Hz, as in the training data.")


def check_names(found: Preflight, what: str, robot: Sequence[str], policy: Sequence[str]) -> None:
    """Are the numbers of state or action those of the policy, in its order?

    Args:
        found: Where to write.
        what: "state" or "action".
        robot: The robot's names, in its order.
        policy: The policy's; empty where it has none.
    """
    subject = f"names of the {what}"
    if not policy:
        found.add(
            subject, "warning", f"The policy has none; the robot sends {', '.join(robot)} in this order."
        )
    elif list(robot) == list(policy):
        found.add(subject, "ok", ", ".join(robot))
    elif why := why_not_in_order(robot, policy):
        found.add(subject, "error", why)
    else:
        found.add(
            subject,
            "error",
            f"The robot has {', '.join(robot)}, but the policy was trained with {', '.join(policy)}: LeRobot would take the robot's "
            "order for the policy's. Use the robot type and motor names of the recording.",
        )


def check_cameras(
    found: Preflight,
    policy: Mapping[str, tuple[int, int]],
    robot: Mapping[str, tuple[int, int]],
) -> None:
    """Are the policy's cameras there, and of the size of the training data?

    Args:
        found: Where to write.
        policy: Camera of the policy -> height and width in the training data.
        robot: Camera of the robot, renamed -> height and width.
    """
    for camera, (height, width) in policy.items():
        if camera not in robot:
            found.add(
                "cameras",
                "error",
                f"{camera!r} is missing: the robot has {', '.join(sorted(robot)) or 'no camera'}. Name the camera so in --robot.cameras, or "
                "map its name with --rename_map.",
            )
            continue
        live_height, live_width = robot[camera]
        if (live_height, live_width) == (height, width):
            found.add("cameras", "ok", f"{camera}: {width} x {height}")
        elif live_height * width == live_width * height:
            found.add(
                "cameras",
                "warning",
                f"{camera}: {live_width} x {live_height}, in the training data {width} x {height}; of the same shape, so that it is resized.",
            )
        else:
            found.add(
                "cameras",
                "error",
                f"{camera}: {live_width} x {live_height} is of another shape than the {width} x {height} of the training data. Set width "
                "and height in --robot.cameras.",
            )
    for camera in sorted(set(robot) - set(policy)):
        found.add("cameras", "ok", f"{camera} is not read by the policy.")


def check_pictures(
    found: Preflight, live: Mapping[str, NDArray[np.uint8]], trained: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Does each camera show something, and what it showed in training?

    Args:
        found: Where to write.
        live: Camera -> (H, W, 3) its picture.
        trained: Camera -> (N, H, W, 3) pictures of the training data.
    """
    for camera, picture in live.items():
        if np.ptp(picture) == 0:
            found.add("pictures", "error", f"{camera} shows a single colour: is its lens covered?")
            continue
        alike = {name: _alike(picture, pictures) for name, pictures in trained.items()}
        if camera not in alike:
            continue
        best = max(alike, key=lambda name: alike[name])
        if alike[best] > alike[camera] + _MORE_ALIKE:
            found.add(
                "pictures",
                "error",
                f"{camera} looks like {best} of the training data ({alike[best]:.2f} against {alike[camera]:.2f} alike): are the cameras "
                "exchanged? Compare the pictures.",
            )
            continue
        least = _least_alike(trained[camera])
        text = f"{camera} is {alike[camera]:.2f} alike the most similar training picture (1 is equal)"
        if alike[camera] < least - _LIKENESS_MARGIN:
            found.add(
                "pictures",
                "warning",
                f"{text}, and each of those is at least {least:.2f} alike another. Compare the pictures: has the camera or the scene changed?",
            )
        else:
            found.add("pictures", "ok", f"{text}.")


def _least_alike(pictures: NDArray[np.uint8]) -> float:
    """How alike the others the odd one out is; -1, the least, of a single picture."""
    if len(pictures) == 1:
        return -1.0
    return min(_alike(picture, np.delete(pictures, index, axis=0)) for index, picture in enumerate(pictures))


def _alike(picture: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """The largest correlation with other pictures, as thumbnails."""
    return max(_correlation(_thumbnail(picture), _thumbnail(other)) for other in others)


def _thumbnail(picture: NDArray[np.uint8]) -> Array:
    from PIL import Image

    small = Image.fromarray(picture).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel()


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0


def outside(values: Array, lowest: Array, highest: Array) -> Array:
    """How far numbers lie outside of a range, in ranges; 0 within. Of a number that stands still, any other is infinitely far.

    NaN and infinity are infinitely far, and so is any number from a range that is not finite.

    Args:
        values: (..., D).
        lowest: (D,).
        highest: (D,).
    """
    beyond = np.maximum(np.maximum(lowest - values, values - highest), 0)
    span = np.broadcast_to(highest - lowest, beyond.shape)
    far = np.where(beyond > _STILL, np.inf, 0.0)
    distance = np.divide(beyond, span, out=far, where=span > _STILL)
    return np.where(np.isfinite(values) & np.isfinite(span), distance, np.inf)


def warn_of_no_range(found: Preflight, subject: str) -> None:
    """Say that numbers can't be compared, since the checkpoint has no smallest and largest values of the training data.

    Args:
        found: Where to write.
        subject: "state" or "actions".
    """
    found.add(
        subject,
        "warning",
        "Not compared: the checkpoint has no range (min and max) of the training data's. Expected statistics in its preprocessor: copy all "
        "files of the checkpoint, or give --robot.max_relative_target=2 for the first runs.",
    )


def check_state(found: Preflight, names: Sequence[str], state: Array, lowest: Array, highest: Array) -> None:
    """Does the arm stand where it stood in the training data?

    Args:
        found: Where to write.
        names: (D) of the motors.
        state: (D,) where it stands.
        lowest: (D,) of the training data.
        highest: (D,) of the training data.
    """
    if len(state) != len(lowest):
        found.add("state", "error", f"{len(state)} numbers, but the policy was trained with {len(lowest)}.")
        return
    far = outside(state, lowest, highest)
    named = [
        f"{name} {value:.4g} ({low:.4g} to {high:.4g})"
        for name, value, low, high, distance in zip(names, state, lowest, highest, far, strict=True)
        if distance > _MARGIN
    ]
    if named:
        found.add(
            "state",
            "error",
            f"Outside of the training data: {', '.join(named)}. Move the arm there by hand, or check units and calibration.",
        )
    else:
        found.add("state", "ok", "Within the range of the training data.")


def check_sizes(found: Preflight, names: Sequence[str], chunk: Array, *trained: Array) -> bool:
    """Has an action as many numbers as names, and as the training data? Only then can they be compared.

    Args:
        found: Where to write.
        names: Of the actions.
        chunk: (T, D) actions.
        *trained: (D,) smallest and largest of the training data, where they are known.
    """
    sizes = [chunk.shape[1], len(names), *map(len, trained)]
    if len(set(sizes)) == 1:
        return True
    found.add(
        "actions",
        "error",
        f"An action has {sizes[0]} numbers, {sizes[1]} names and a training range of {sizes[2:] or 'unknown size'}: expected as many of "
        "each. Take all files from the same checkpoint.",
    )
    return False


def check_chunk(found: Preflight, names: Sequence[str], chunk: Array, lowest: Array, highest: Array) -> None:
    """Are the actions that the policy wants of the kind that it was shown?

    Args:
        found: Where to write.
        names: (D) of the actions.
        chunk: (T, D) actions, in the robot's units.
        lowest: (D,) of the training data.
        highest: (D,) of the training data.
    """
    far = outside(chunk, lowest, highest).max(axis=0)
    named = [
        f"{name} by {distance:.0%}" for name, distance in zip(names, far, strict=True) if distance > _MARGIN
    ]
    if not named:
        found.add("actions", "ok", f"A chunk of {len(chunk)} within the range of the training actions.")
        return
    text = f"A chunk leaves the range of the training actions: {', '.join(named)} of it."
    if (far > _FAR).any():
        found.add(
            "actions",
            "error",
            f"{text} The policy is not trained enough, or sees something else than it was trained on.",
        )
    else:
        found.add("actions", "warning", text)


def check_first_step(
    found: Preflight, names: Sequence[str], state: Array, action: Array, lowest: Array, highest: Array
) -> None:
    """Where actions are places for the same motors: how far is the first of them?

    Args:
        found: Where to write.
        names: (D) of the motors.
        state: (D,) where the arm stands.
        action: (D,) the first goal.
        lowest: (D,) of the training actions.
        highest: (D,) of the training actions.
    """
    step, span = np.abs(action - state), highest - lowest
    # Of a joint that stands still in the data there is no share to compare; `outside` names it.
    still = span <= _STILL
    if still.all():
        return
    worst = int(np.argmax(np.divide(step, span, out=np.zeros_like(span), where=~still)))
    text = f"The first goal is up to {step[worst]:.4g} away ({names[worst]}, {step[worst] / span[worst]:.0%} of its range)."
    if not step[worst] <= 0.25 * span[worst]:  # of NaN, too
        found.add(
            "first step",
            "warning",
            f"{text} The arm will jump: give --robot.max_relative_target=2 for the first runs.",
        )
    else:
        found.add("first step", "ok", text)


def check_latency(
    found: Preflight,
    seconds: float,
    fps: float,
    *,
    chunk_size: int,
    executed: int,
    queue_threshold: int | None,
    horizon: int,
    can_be_guided: bool = True,
) -> None:
    """Do chunks come in time?

    Args:
        found: Where to write.
        seconds: That a chunk takes.
        fps: Ticks per second.
        chunk_size: Actions of a chunk.
        executed: Actions of it that are executed before the next is asked for, without real-time chunking.
        queue_threshold: Of `--inference.queue_threshold`: actions that are left when the next chunk is asked for; None without
            real-time chunking.
        horizon: Of `--inference.rtc.execution_horizon`.
        can_be_guided: The policy acts in a way that real-time chunking guides.
    """
    delay = math.ceil(seconds * fps)
    text = f"A chunk of {chunk_size} takes {seconds * 1000:.0f} ms, {delay} tick(s) of {1000 / fps:.0f} ms"
    if queue_threshold is None:
        if seconds * fps <= 1:
            found.add("latency", "ok", f"{text}.")
        else:
            found.add(
                "latency",
                "warning",
                f"{text}: the arm waits that long after every {executed} action(s), {1 / executed:.0%} of the ticks are late. "
                f"Use --inference.type=rtc{'' if can_be_guided else ' and --policy.action_tokens.act=flow'}.",
            )
        return
    least = delay + _RESERVE
    if delay >= chunk_size:
        found.add(
            "latency",
            "error",
            f"{text}: it is used up before the next one comes. Use a faster machine, or a lower rate.",
        )
    elif queue_threshold < delay:
        found.add(
            "latency",
            "error",
            f"{text}, but the next one is asked for when {queue_threshold} are left, so that the arm stops and goes. Give "
            f"--inference.queue_threshold={min(least, chunk_size - 1)}.",
        )
    elif queue_threshold >= chunk_size:
        found.add(
            "latency",
            "warning",
            f"{text}; with --inference.queue_threshold={queue_threshold} chunks are computed without a pause. "
            f"{min(least, chunk_size - 1)} is enough.",
        )
    elif horizon < delay:
        found.add(
            "latency",
            "warning",
            f"{text}, more than the {horizon} that continue the chunk before. Give --inference.rtc.execution_horizon={min(2 * delay, chunk_size)}.",
        )
    else:
        found.add("latency", "ok", f"{text}; the next one is asked for when {queue_threshold} are left.")
