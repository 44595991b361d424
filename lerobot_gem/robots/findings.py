"""What a preflight found."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        subject: What was looked at.
        level: "error" where the rollout would fail or move wrongly, "warning" where it might.
        text: What was found, and what to do about it.
    """

    subject: str
    level: Level
    text: str


@dataclass(frozen=True)
class JointRow:
    """A number of the state and what becomes of it, in the robot's units; None is unknown.

    Attributes:
        name: Of the motor.
        now: Where it stands.
        trained: Smallest and largest state in the training data.
        first: The first action.
        lowest: Smallest number of the chunk.
        highest: Largest number of the chunk.
        trained_actions: Smallest and largest action in the training data.
    """

    name: str
    now: float | None
    trained: tuple[float, float] | None
    first: float | None
    lowest: float | None
    highest: float | None
    trained_actions: tuple[float, float] | None


@dataclass(frozen=True)
class CameraPictures:
    """A camera's picture now, and one of the training data, (H, W, 3) uint8; None where there is none."""

    camera: str
    live: NDArray[np.uint8] | None
    trained: NDArray[np.uint8] | None


@dataclass
class Preflight:
    """All that was found.

    Attributes:
        policy: Path or Hub id of the policy.
        robot: Type and port.
        findings: In the order in which they were looked at.
        joints: One row for each number of state or action.
        pictures: One pair for each camera of the policy.
    """

    policy: str
    robot: str
    findings: list[Finding] = field(default_factory=list)
    joints: list[JointRow] = field(default_factory=list)
    pictures: list[CameraPictures] = field(default_factory=list)

    def add(self, subject: str, level: Level, text: str) -> None:
        """Write a finding down."""
        self.findings.append(Finding(subject, level, text))

    def count(self, level: Level) -> int:
        """How many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line on whether to act."""
        state = f"{self.count('error')} error(s): do not act" if self.count("error") else "ready to act"
        return f"{state}, {self.count('warning')} warning(s)"
