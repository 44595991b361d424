"""Attempts on disk: a folder for each, complete or absent, until the dataset is written from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.questions.recorder import FrameLanguage
from lerobot_gem.storage.output_folder import complete_or_absent
from lerobot_gem.storage.recorded_episodes import has_episode, write_episode
from lerobot_gem.storage.single_frames import store_frames

# Random scenes that are simulated, and kept, as one piece of work.
SCENES_PER_BATCH = 50
# Files in the folder of an attempt: of a batch of scenes, and of every attempt about which questions are asked.
_SCENES, _LANGUAGE = "frames.parquet", "language.json"
# Of an attempt whose instruction is not its task's own.
_INSTRUCTION = "instruction.txt"

Frame = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Attempt:
    """One piece of work, identified by task and number: a demonstration, or a batch of random scenes.

    Attributes:
        task_id: Task of the suite.
        number: Of the try of the task, of the recorded demonstration, or of the batch.
        scenes: How many random scenes, at most `SCENES_PER_BATCH`; 0 for a demonstration.
    """

    task_id: int
    number: int
    scenes: int = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        if not self.scenes:
            return f"task{self.task_id:02d}_attempt{self.number:06d}"
        # The last batch is as small as what is wanted; a continuation that wants more makes it anew.
        size = "" if self.scenes == SCENES_PER_BATCH else f"_of{self.scenes}"
        return f"task{self.task_id:02d}_frames{self.number:06d}{size}"


@dataclass(frozen=True)
class Recording:
    """What an attempt gives.

    Attributes:
        frames: Keyed as in `dataset_features`; of a demonstration in its order, of a batch of scenes unrelated.
        language: What can be said about each of them; None in a collection without questions.
        instruction: What was to be done; None for what the task says.
    """

    frames: list[Frame]
    language: list[FrameLanguage] | None
    instruction: str | None = None


def write_attempt(attempt: Attempt, recording: Recording | None, staging: Path) -> None:
    """Keep a finished attempt, with its images encoded.

    Args:
        attempt: Which one.
        recording: What it gave; None when it did not succeed.
        staging: Folder of all attempts.
    """
    with complete_or_absent(staging / attempt.name) as folder:
        if recording is None:
            return
        if attempt.scenes:
            store_frames(recording.frames, folder / _SCENES)
        else:
            write_episode(recording.frames, folder)
        if recording.language is not None:
            language = [frame.to_json() for frame in recording.language]
            (folder / _LANGUAGE).write_text(json.dumps(language))
        if recording.instruction is not None:
            (folder / _INSTRUCTION).write_text(recording.instruction)


def succeeded(folder: Path) -> bool:
    """Whether the attempt in a folder has frames."""
    return has_episode(folder) or (folder / _SCENES).exists()


def scenes_file(folder: Path) -> Path:
    """Where `write_attempt` kept the frames of a batch of scenes."""
    return folder / _SCENES


def read_instruction(folder: Path) -> str | None:
    """The instruction of an attempt, if it is not its task's own."""
    file = folder / _INSTRUCTION
    return file.read_text() if file.exists() else None


def read_language(folder: Path) -> list[FrameLanguage]:
    """What can be said about each frame of an attempt."""
    return [FrameLanguage.from_json(values) for values in json.loads((folder / _LANGUAGE).read_text())]
