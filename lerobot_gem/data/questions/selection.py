"""Chooses questions so that no kind can be answered well without looking.

The choice is made when the data set is written, from all candidates in the data set's order: it does not depend on how
many processes simulated, or in which order.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from lerobot_gem.data.questions.kinds import Question

# No answer is given to more than this share of the questions of its kind.
MOST_COMMON = 0.6


def select(images: Iterable[Sequence[Question]], per_image: int) -> list[list[Question]]:
    """Choose questions for each picture.

    Kinds that have been asked least come first, and of a kind the question whose answer has been given least. Afterwards
    questions with too common an answer are dropped, evenly over the data set.

    Args:
        images: the candidates for each picture, in the data set's order.
        per_image: at most so many for each, all of different kinds.

    Returns:
        The questions for each picture.
    """
    asked: Counter[str] = Counter()
    given: dict[str, Counter[str]] = defaultdict(Counter)
    chosen: list[tuple[int, Question]] = []
    number = -1
    for number, questions in enumerate(images):
        by_kind: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            by_kind[question.kind].append(question)
        for kind in sorted(by_kind, key=lambda kind: asked[kind])[:per_image]:
            counts = given[kind]
            question = min(by_kind[kind], key=lambda question: counts[question.answer])
            chosen.append((number, question))
            asked[kind] += 1
            counts[question.answer] += 1
    result: list[list[Question]] = [[] for _ in range(number + 1)]
    for kind in asked:
        members = [(place, question) for place, question in chosen if question.kind == kind]
        for index in balanced([question.answer for _, question in members]):
            place, question = members[index]
            result[place].append(question)
    return result


def balanced(answers: Sequence[str]) -> list[int]:
    """Which answers to keep so that none of them exceeds `MOST_COMMON`, as many as possible, in order."""
    if not answers:
        return []
    (answer, count), *_ = Counter(answers).most_common(1)
    others = len(answers) - count
    allowed = int(others * MOST_COMMON / (1 - MOST_COMMON) + 1e-9)
    if count <= allowed:
        return list(range(len(answers)))
    places = [index for index, given in enumerate(answers) if given == answer]
    kept = {places[int(index)] for index in np.linspace(0, count - 1, allowed)}
    return [index for index, given in enumerate(answers) if given != answer or index in kept]
