"""Where a frame's questions and answers come from, and which images they are about."""

import json

import pytest

from lerobot_gem.processing.language import (
    Conversation,
    conversations,
    messages_of_rows,
    messages_of_task,
    parse_messages,
)
from lerobot_gem.storage.language_columns import row
from tests.conftest import CAMERAS, vqa

FRONT, WRIST = CAMERAS


def texts(messages):
    return [message["content"] for message in messages]


def test_questions_and_answers_are_paired_by_camera_in_the_order_that_lerobot_stores_them():
    # LeRobot sorts events by style, role and camera, so answers come first.
    events = [*vqa("front 1", "a"), *vqa("wrist", "b", WRIST), *vqa("front 2", "c")]
    events.sort(key=lambda event: (event["style"], event["role"], event["camera"]))
    messages = messages_of_rows([], events, timestamp=0, task=None, index=0)
    assert texts(messages) == ["front 1", "a", "front 2", "c", "wrist", "b"]
    assert [message["camera"] for message in messages[::2]] == [FRONT, FRONT, WRIST]


def test_the_subtask_and_plan_that_are_active_answer_planning_questions():
    persistent = [
        row("assistant", text, style, timestamp=time)
        for text, style, time in (
            ("reach", "subtask", 0.0),
            ("grasp", "subtask", 0.4),
            ("lift", "subtask", 1.0),
            ("reach, grasp, lift", "plan", 0.0),
        )
    ]
    messages = messages_of_rows(persistent, [], timestamp=0.6, task="get the milk", index=0)
    assert texts(messages)[1::2] == ["grasp", "reach, grasp, lift"]
    assert all("Get the milk." in question for question in texts(messages)[::2])
    assert all(message["camera"] is None for message in messages[::2])


def test_the_task_answers_a_planning_question_that_the_frame_picks():
    questions = set()
    for index in range(6):
        question, answer = texts(messages_of_task("pick up the milk", index))
        questions.add(question)
        assert answer == "Pick up the milk."
    assert len(questions) > 1


def test_a_grounded_question_is_asked_about_its_camera_alone():
    messages = messages_of_rows([], vqa("Where?", "There.", WRIST), 0, None, 0) + messages_of_task("lift", 0)
    common, grounded = conversations(messages, CAMERAS)
    assert common == Conversation([0], [(messages[2]["content"], "Lift.")])
    assert grounded == Conversation([1], [("Where?", "There.")])


@pytest.mark.parametrize("asked", [(), (FRONT,), (WRIST,), (FRONT, WRIST)])
def test_every_image_is_shown_exactly_once(asked):
    messages = [
        message for camera in asked for message in messages_of_rows([], vqa("?", "!", camera), 0, None, 0)
    ]
    found = conversations(messages + messages_of_task("lift", 0), CAMERAS)
    assert sorted(camera for talk in found for camera in talk.cameras) == [0, 1]
    assert sum(len(talk.exchanges) for talk in found) == len(asked) + 1


def test_questions_about_a_camera_that_the_policy_does_not_use_are_left_out():
    messages = messages_of_rows([], vqa("Where?", "There.", WRIST), 0, None, 0)
    assert conversations(messages, [FRONT]) == [Conversation([0])]


@pytest.mark.parametrize(
    "text",
    [
        "Where?",
        None,
        '["Where?"]',
        '[{"role": "user", "content": "Where?"}]',
        '[{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": "There."}]',
        '[{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]',
    ],
)
def test_bad_messages_are_named(text):
    with pytest.raises(ValueError, match=r"column 'messages' holds .* expected JSON like"):
        parse_messages(text)


def test_a_question_without_answer_is_named():
    with pytest.raises(
        ValueError, match=r"1 vqa question\(s\) and 0 answer\(s\) about observation.images.image"
    ):
        messages_of_rows([], [row("user", "Where?", "vqa", FRONT)], 0, None, 0)


def test_messages_survive_json():
    messages = messages_of_task("lift", 0)
    assert parse_messages(json.dumps(messages)) == messages


@pytest.mark.parametrize("time", [None, float("nan"), float("inf")])
def test_a_row_without_time_is_named(time):
    with pytest.raises(ValueError, match=f"row of style 'subtask' has timestamp={time}: expected seconds"):
        messages_of_rows([row("assistant", "reach", "subtask", timestamp=time)], [], 0, None, 0)


def test_a_row_without_text_is_named_and_never_learned_as_the_word_none():
    with pytest.raises(ValueError, match="row of style 'vqa' has content=None: expected text"):
        messages_of_rows(
            [], [row("user", "Where?", "vqa", FRONT), row("assistant", None, "vqa", FRONT)], 0, None, 0
        )
    with pytest.raises(ValueError, match="row of style 'plan' has content=None"):
        messages_of_rows([row("assistant", None, "plan", timestamp=0.0)], [], 0, None, 0)


@pytest.mark.parametrize("role", [None, "human"])
def test_a_row_of_another_role_is_named(role):
    with pytest.raises(ValueError, match=f"row of style 'vqa' has role={role!r}: expected 'user'"):
        messages_of_rows([], [row(role, "Where?", "vqa", FRONT)], 0, None, 0)
