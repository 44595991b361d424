"""Chooses questions so that no kind can be answered well without looking.

The choice is made when the dataset is written, from all candidates in the dataset's order: it does not depend on how
many processes simulated, or in which order.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from lerobot_gem.data.libero_demos.questions.kinds import Question

# No answer is given to more than this share of the questions of its kind.
MOST_COMMON = 0.6


class Selection:
    """Chooses questions for images that are offered in the dataset's order.

    It prefers the kinds that have been asked least, and of a kind the question whose answer has been given least. In the
    end it drops questions whose answer is too common, evenly over the dataset.

    Args:
        per_image: Largest number of questions about each image, all of different kinds.
    """

    def __init__(self, per_image: int):
        self.per_image = per_image
        self._chosen: dict[str, list[tuple[int, Question]]] = defaultdict(list)
        self._given: dict[str, Counter[str]] = defaultdict(Counter)

    def offer(self, frame: int, candidates: Sequence[Question]) -> None:
        """Choose among the questions about one image of a frame."""
        by_kind: dict[str, list[Question]] = defaultdict(list)
        for question in candidates:
            by_kind[question.kind].append(question)
        for kind in sorted(by_kind, key=lambda kind: len(self._chosen[kind]))[: self.per_image]:
            given = self._given[kind]
            question = min(by_kind[kind], key=lambda question: given[question.answer])
            self._chosen[kind].append((frame, question))
            given[question.answer] += 1

    @property
    def num_chosen(self) -> int:
        """Questions that were chosen, those included that `balanced` leaves out."""
        return sum(map(len, self._chosen.values()))

    def balanced(self) -> list[tuple[int, Question]]:
        """What was chosen, with the frames, less what would make an answer too common; by kind."""
        result = []
        for members in self._chosen.values():
            result += [members[index] for index in balanced([question.answer for _, question in members])]
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
