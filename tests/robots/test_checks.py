"""Each comparison by itself: what is right, what is named, what stops."""

import numpy as np
import pytest

from lerobot_gem.robots import checks
from lerobot_gem.robots.findings import Preflight

LOW, HIGH = np.array([-10.0, 0.0]), np.array([10.0, 100.0])
NAMES = ["pan.pos", "gripper.pos"]


@pytest.fixture
def found() -> Preflight:
    return Preflight("policy", "robot")


def outcome(found: Preflight) -> tuple[str, str]:
    [finding] = found.findings
    return finding.level, finding.text


@pytest.mark.parametrize(
    ("task", "default", "trained", "level", "text"),
    [
        ("", "", [], "error", "give one sentence, such as --task='pick up the cube'."),
        ("  ", "", ["pour", "mix"], "error", "give --task with one of the training data's: 'pour', 'mix'."),
        ("", "pour", ["pour"], "ok", "acts on 'pour'"),
        ("pour", "", ["pour", "stack"], "ok", "'pour'"),
        ("Pour", "", ["pour"], "warning", "none of the 1 task(s)"),
        ("anything", "", [], "ok", "are not known"),
    ],
)
def test_task(found, task, default, trained, level, text):
    checks.check_task(found, task, default, trained)
    assert outcome(found)[0] == level
    assert text in outcome(found)[1]


@pytest.mark.parametrize(
    ("fps", "trained", "level"), [(30, 30.0, "ok"), (30, 10.0, "error"), (30, None, "warning")]
)
def test_rate(found, fps, trained, level):
    checks.check_rate(found, fps, trained)
    assert outcome(found)[0] == level


@pytest.mark.parametrize(
    ("policy", "level", "text"),
    [
        (NAMES, "ok", "pan.pos"),
        (NAMES[::-1], "error", "another order"),
        (["a.pos", "gripper.pos"], "error", "trained with a.pos"),
        ([], "warning", "in this order"),
    ],
)
def test_names(found, policy, level, text):
    checks.check_names(found, "action", NAMES, policy)
    assert outcome(found)[0] == level
    assert text in outcome(found)[1]


@pytest.mark.parametrize(
    ("size", "level"), [((48, 64), "ok"), ((96, 128), "warning"), ((64, 64), "error"), (None, "error")]
)
def test_cameras(found, size, level):
    checks.check_cameras(found, {"front": (48, 64)}, {} if size is None else {"front": size})
    assert outcome(found)[0] == level


def test_a_camera_too_many_is_no_error(found):
    checks.check_cameras(found, {"front": (48, 64)}, {"front": (48, 64), "top": (9, 9)})
    assert found.count("ok") == 2


def test_exchanged_cameras_are_seen(found):
    random = np.random.default_rng(0)
    front, wrist = (
        random.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(2)
    )
    trained = {"front": front[None], "wrist": wrist[None]}
    checks.check_pictures(found, {"front": front, "wrist": wrist}, trained)
    assert found.count("ok") == 2
    checks.check_pictures(found, {"front": wrist}, trained)
    assert found.count("error") == 1
    assert "looks like wrist" in found.findings[-1].text


def test_one_camera_that_shows_another_scene_is_warned_of(found):
    random = np.random.default_rng(0)

    def scene() -> np.ndarray:
        return random.integers(0, 200, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)

    def noisy(picture: np.ndarray) -> np.ndarray:
        return picture + random.integers(0, 50, picture.shape, dtype=np.uint8)

    table = scene()
    trained = {"front": np.stack([noisy(table) for _ in range(8)])}
    checks.check_pictures(found, {"front": trained["front"][3]}, trained)
    assert found.findings[-1].level == "ok"
    checks.check_pictures(found, {"front": noisy(scene())}, trained)
    assert found.findings[-1].level == "warning"
    assert "has the camera or the scene changed?" in found.findings[-1].text


def test_how_far_outside():
    still = np.array([0.0, 5.0]), np.array([1.0, 5.0])
    assert checks.outside(np.array([[2.0, 5.0], [0.5, 6.0]]), *still).tolist() == [[1, 0], [0, np.inf]]


@pytest.mark.parametrize(
    ("state", "level", "text"),
    [
        ([11.0, 100.0], "ok", "Within"),
        ([13.0, 50.0], "error", "pan.pos 13 (-10 to 10)"),
        ([0.0, 0.0, 0.0], "error", "3 numbers"),
    ],
)
def test_state(found, state, level, text):
    checks.check_state(found, NAMES, np.array(state), LOW, HIGH)
    assert outcome(found)[0] == level
    assert text in outcome(found)[1]


@pytest.mark.parametrize(("pan", "level"), [(11.0, "ok"), (15.0, "warning"), (40.0, "error")])
def test_chunk(found, pan, level):
    checks.check_chunk(found, NAMES, np.array([[0.0, 50.0], [pan, 50.0]]), LOW, HIGH)
    assert outcome(found)[0] == level


@pytest.mark.parametrize(("goal", "level"), [(4.0, "ok"), (9.0, "warning")])
def test_first_step(found, goal, level):
    checks.check_first_step(found, NAMES, np.array([0.0, 50.0]), np.array([goal, 50.0]), LOW, HIGH)
    assert outcome(found)[0] == level


def test_a_joint_that_stands_still_in_the_data_hides_no_jump(found):
    state, goal, low, high = np.array([5.3, 0.0, 50.0]), np.array([5.0, 9.0, 50.0]), [5.0, *LOW], [5.0, *HIGH]
    checks.check_first_step(found, ["still.pos", *NAMES], state, goal, np.array(low), np.array(high))
    assert outcome(found)[0] == "warning"
    assert "up to 9 away (pan.pos, 45% of its range)" in outcome(found)[1]


def test_where_all_joints_stand_still_there_is_no_share_to_compare(found):
    checks.check_first_step(found, NAMES, LOW, HIGH, LOW, LOW)
    assert found.findings == []


@pytest.mark.parametrize(
    ("seconds", "threshold", "horizon", "level", "text"),
    [
        (0.05, None, 0, "ok", "1 tick(s) of 100 ms"),
        (0.45, None, 0, "warning", "25% of the ticks are late"),
        (0.45, 7, 10, "ok", "when 7 are left"),
        (0.45, 4, 10, "error", "Give --inference.queue_threshold=7"),
        (0.45, 30, 10, "warning", "7 is enough"),
        (0.45, 7, 3, "warning", "execution_horizon=8"),
        (0.85, 7, 10, "error", "used up before"),
    ],
)
def test_latency(found, seconds, threshold, horizon, level, text):
    checks.check_latency(
        found, seconds, 10, chunk_size=8, executed=4, queue_threshold=threshold, horizon=horizon
    )
    assert outcome(found)[0] == level
    assert text in outcome(found)[1]


def test_tokens_that_come_late_are_not_to_be_guided(found):
    checks.check_latency(
        found, 0.3, 10, chunk_size=8, executed=4, queue_threshold=None, horizon=0, can_be_guided=False
    )
    assert "Use --inference.type=rtc and --policy.action_tokens.act=flow." in outcome(found)[1]


NAN = np.full(2, np.nan)


@pytest.mark.parametrize("low", [LOW, NAN], ids=["chunk", "statistics"])
def test_what_is_not_finite_is_no_action_of_training(found, low):
    checks.check_chunk(found, NAMES, np.stack([NAN if low is LOW else LOW] * 4), low, HIGH)
    assert outcome(found)[0] == "error"


def test_a_state_that_is_not_finite(found):
    checks.check_state(found, NAMES, NAN, LOW, HIGH)
    assert outcome(found)[0] == "error"


def test_a_first_goal_that_is_not_finite(found):
    checks.check_first_step(found, NAMES, LOW, NAN, LOW, HIGH)
    assert outcome(found)[0] == "warning"


@pytest.mark.parametrize(
    ("names", "trained", "text"),
    [
        (NAMES, [LOW, np.zeros(3)], "2 numbers, 2 names and a training range of [2, 3]"),
        ([*NAMES, "x"], [LOW, HIGH], "2 numbers, 3 names"),
        (["x"], [], "2 numbers, 1 names and a training range of unknown size"),
    ],
)
def test_actions_of_another_size_are_not_compared(found, names, trained, text):
    assert checks.check_sizes(found, NAMES, np.zeros((4, 2)), LOW, HIGH)
    assert found.findings == []
    assert not checks.check_sizes(found, names, np.zeros((4, 2)), *trained)
    assert outcome(found)[0] == "error"
    assert text in outcome(found)[1]


def test_a_range_that_is_not_known(found):
    checks.warn_of_no_range(found, "actions")
    assert outcome(found)[0] == "warning"


@pytest.mark.parametrize("trained", [0.0, float("nan"), 1e6])
def test_a_rate_that_is_none(found, trained):
    checks.check_rate(found, 30, trained)
    assert outcome(found)[0] == "error"
