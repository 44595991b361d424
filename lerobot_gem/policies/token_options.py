"""Options of what a policy that acts learns by next-token prediction: its actions in tokens, and answers to questions."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lerobot_gem.validation import checked, require

ActBy = Literal["flow", "tokens"]
# Below it, logits divided by a temperature may be more than a float holds.
_COLDEST = 1e-3


@dataclass
class ActionTokensConfig:
    """Actions in tokens, which the backbone writes behind the observation (docs/concepts/action_tokens.md).

    Attributes:
        loss_weight: Weight of the tokens' cross-entropy beside the flow loss. 0 learns none, and builds no layer that the expert does
            not read; 1 in knowledge insulation (arXiv 2505.23705).
        vocabulary: Largest number of action tokens; Qwen3-VL's embedding has room for 266.
        scale: What a coefficient of a chunk's cosine transform is multiplied by before it is rounded; 10 in FAST (arXiv 2501.09747).
        insulate: The expert reads detached states, so that the backbone learns from tokens, language and depth, not from the flow
            (knowledge insulation, arXiv 2505.23705).
        act: How the policy acts: by the expert's "flow", or by "tokens", which are slower.
        temperature: Of the tokens that are drawn when acting by tokens; 0 takes the likeliest.
        max_coefficients: When acting by tokens, after how many of a chunk's coefficients it ends: `chunk_size` frequencies times the numbers of
            an action. Those left out, of the highest frequencies, are 0. None writes all.
    """

    loss_weight: float = 0.0
    vocabulary: int = 256
    scale: float = 10.0
    insulate: bool = False
    act: ActBy = "flow"
    temperature: float = 0.0
    max_coefficients: int | None = None

    @checked
    def __post_init__(self) -> None:
        require(self.act, get_args(ActBy), "action_tokens.act")
        _check_weight(self.loss_weight, "action_tokens.loss_weight")
        if self.temperature != 0 and not (math.isfinite(self.temperature) and self.temperature >= _COLDEST):
            raise ValueError(
                f"action_tokens.temperature={self.temperature}: expected 0 for the likeliest tokens, or at least {_COLDEST}."
            )
        if not self.scale > 0:
            raise ValueError(f"action_tokens.scale={self.scale}: expected more than 0 (10 in FAST).")
        for name in ("vocabulary", "max_coefficients"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"action_tokens.{name}={value}: expected at least 1.")
        if self.insulate and not self.loss_weight:
            raise ValueError(
                "action_tokens.insulate=true with action_tokens.loss_weight=0: the backbone would learn nothing of actions. Expected "
                "--policy.action_tokens.loss_weight=1, or --policy.action_tokens.insulate=false."
            )


@dataclass
class CoTrainingConfig:
    """Questions and answers that are learned beside actions.

    Attributes:
        loss_weight: Weight of the answers' cross-entropy. 0 reads no questions.
        repo_id: A second dataset, of questions, in LeRobot's format. None takes the questions of the robot dataset's own frames
            (its language columns or `messages`).
        root: Folder of that dataset; None for LeRobot's own place of `repo_id`, or the Hub.
        share: Questions of the second dataset in a batch, as a share of the batch.
        num_workers: Processes that read them.
    """

    loss_weight: float = 0.0
    repo_id: str | None = None
    root: str | None = None
    share: float = 0.25
    num_workers: int = 2

    @checked
    def __post_init__(self) -> None:
        _check_weight(self.loss_weight, "co_training.loss_weight")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"co_training.share={self.share}: expected a share of the batch, above 0 and at most 1."
            )
        if self.num_workers < 0:
            raise ValueError(f"co_training.num_workers={self.num_workers}: expected 0 or more.")
        if self.repo_id is not None and not self.loss_weight:
            raise ValueError(
                f"co_training.repo_id={self.repo_id!r} with co_training.loss_weight=0: its questions would not be learned. Expected "
                "--policy.co_training.loss_weight=1, or --policy.co_training.repo_id=null --policy.co_training.root=null."
            )
        if self.root is not None and self.repo_id is None:
            raise ValueError(
                f"co_training.root={self.root!r} without co_training.repo_id: expected the name of the second dataset too, such as "
                "--policy.co_training.repo_id=local/questions."
            )


def _check_weight(weight: float, name: str) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{name}={weight}: expected 0 or more.")
