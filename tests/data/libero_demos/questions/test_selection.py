"""Balanced answers, whatever there is to choose from."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from lerobot_gem.data.libero_demos.questions.kinds import Question
from lerobot_gem.data.libero_demos.questions.selection import MOST_COMMON, Selection, balanced


def _q(kind: str, answer: str) -> Question:
    return Question(kind, "camera", f"{kind}?", answer)


def select(images: Sequence[Sequence[Question]], per_image: int) -> list[list[Question]]:
    selection = Selection(per_image)
    for frame, candidates in enumerate(images):
        selection.offer(frame, candidates)
    chosen: list[list[Question]] = [[] for _ in images]
    for frame, question in selection.balanced():
        chosen[frame].append(question)
    return chosen


def _shares(chosen: list[list[Question]]) -> dict[str, float]:
    kinds = {question.kind for questions in chosen for question in questions}
    shares = {}
    for kind in kinds:
        answers = Counter(q.answer for questions in chosen for q in questions if q.kind == kind)
        shares[kind] = max(answers.values()) / answers.total()
    return shares


def test_of_two_answers_the_rarer_one_is_given() -> None:
    chosen = select([[_q("side", "left"), _q("side", "right")]] * 10, per_image=1)
    assert Counter(question.answer for [question] in chosen) == {"left": 5, "right": 5}


def test_kinds_take_turns() -> None:
    images = [[_q("a", str(n)), _q("b", str(n)), _q("c", str(n))] for n in range(9)]
    chosen = select(images, per_image=1)
    assert Counter(question.kind for [question] in chosen) == {"a": 3, "b": 3, "c": 3}
    two = select(images, per_image=2)
    assert all(len({question.kind for question in questions}) == len(questions) == 2 for questions in two)


def test_a_rare_kind_is_asked_where_it_can_be() -> None:
    images = [[_q("often", str(n))] + [_q("rare", str(n))] * (n % 10 == 9) for n in range(100)]
    chosen = select(images, per_image=1)
    assert sum(question.kind == "rare" for questions in chosen for question in questions) == 10


@pytest.mark.parametrize("seed", range(5))
def test_no_answer_is_too_common(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(int(rng.integers(1, 200))):
        answers = {
            "a": rng.choice(["1", "2", "3"], p=[0.9, 0.05, 0.05]),
            "b": rng.choice(["x", "y"], p=[0.7, 0.3]),
        }
        images.append([_q(kind, str(answer)) for kind, answer in answers.items() if rng.random() < 0.7])
    for per_image in (1, 2):
        assert all(share <= MOST_COMMON for share in _shares(select(images, per_image)).values())


def test_no_more_is_dropped_than_needed_and_evenly() -> None:
    answers = ["0"] * 50 + ["1"] * 20 + ["0"] * 50
    kept = balanced(answers)
    assert sum(answers[index] == "1" for index in kept) == 20
    zeros = [index for index in kept if answers[index] == "0"]
    assert len(zeros) == 30 and abs(sum(index < 50 for index in zeros) - 15) <= 1
    assert balanced(["0", "1", "0", "1", "1"]) == [0, 1, 2, 3, 4]


def test_a_single_answer_is_no_question() -> None:
    assert balanced(["yes"] * 7) == [] and balanced([]) == []
    assert select([[_q("a", "yes")]] * 3, per_image=1) == [[], [], []]


def test_images_without_candidates_get_none() -> None:
    assert select([[], [_q("a", "1")], [], [_q("a", "2")]], 1) == [[], [_q("a", "1")], [], [_q("a", "2")]]
    assert select([], 1) == []
