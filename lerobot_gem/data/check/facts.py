"""What a check finds out about a dataset, as plain data; inspector.py collects it, report.py and page.py show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.processing.depth_target import Colormap
from lerobot_gem.processing.language import Message


@dataclass(frozen=True)
class StageFacts:
    """What a stage of GEM can use.

    Attributes:
        name: Connector, generator, joint or action.
        lacking: What it needs and the dataset has none of, such as "no depth"; None if it has all.
        errors: What its training would raise.
        depth: Share of frames with depth that belongs to one of the policy's cameras; None if no frame was read.
        language: Share of frames with an answer to learn, or, for acting, with a task; None if the stage has no use
            for it.
        action: Share of frames with an action; None if the stage has no use for it.
    """

    name: str
    lacking: str | None = None
    errors: list[str] = field(default_factory=list)
    depth: float | None = None
    language: float | None = None
    action: float | None = None


@dataclass(frozen=True)
class CameraFacts:
    """An RGB camera.

    Attributes:
        key: Its feature.
        size: Width and height in pixels.
        storage: "image" or "video".
        depth: Its depth camera, if any.
        one_colour: Share of sampled frames that show a single colour.
    """

    key: str
    size: tuple[int, int]
    storage: str
    depth: str | None
    one_colour: float


@dataclass(frozen=True)
class DepthFacts:
    """A depth camera, measured on the sampled frames.

    Attributes:
        key: Its feature.
        camera: The RGB camera that it belongs to, if any.
        size: Width and height in pixels.
        storage: "image" or "video".
        unit: Of the stored values; None if the dataset does not say.
        distances: Least, median and largest in metres, of valid pixels (11 mm to 9.99 m); None without any.
        invalid: Share of pixels that are not valid.
        empty: Share of frames without a valid pixel.
    """

    key: str
    camera: str | None
    size: tuple[int, int]
    storage: str
    unit: str | None
    distances: tuple[float, float, float] | None
    invalid: float
    empty: float


@dataclass(frozen=True)
class LanguageFacts:
    """Language rows of one style, role and camera.

    Attributes:
        column: "language_persistent", whose rows belong to an episode, or "language_events", to a frame.
        style: LeRobot's, such as "vqa" or "subtask".
        role: "user" or "assistant".
        camera: That they are about, if any.
        count: How many.
    """

    column: str
    style: str | None
    role: str
    camera: str | None
    count: int


@dataclass(frozen=True)
class PromptFacts:
    """Prompts of one policy.

    Attributes:
        policy: "gem" or "gem_vla".
        preset: Whose tokenizer and image sizes count.
        frames: Frames whose texts were read.
        image_tokens: Tokens of each image.
        prompts: How many prompts they have.
        lengths: Median, 95th percentile and largest length in tokens; None without prompts.
        context: Tokens that the backbone was made for.
        too_long: Prompts that exceed it.
        questions: Questions to learn, by camera (None: about none).
        task_only: Frames whose one answer is the task sentence.
        left_out: Questions about cameras that the policy does not have.
    """

    policy: str
    preset: str
    frames: int
    image_tokens: list[int]
    prompts: int
    lengths: tuple[float, float, float] | None
    context: int
    too_long: int
    questions: Mapping[str | None, int]
    task_only: int
    left_out: int


@dataclass(frozen=True)
class VectorFacts:
    """Actions or states, of all frames.

    Attributes:
        key: Their feature.
        names: Of the dimensions.
        minimum: Least value of each dimension.
        maximum: Largest value of each dimension.
        not_finite: Frames with NaN or an infinite value.
        stale: Dimensions whose range in meta/stats.json is another one.
        has_stats: Whether meta/stats.json knows them.
        still: Dimensions that stand still in the data, or nearly, for how the policy normalises them.
        is_still_read: Whether the policy normalises and reads, or learns, them all the same.
    """

    key: str
    names: list[str]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    not_finite: int
    stale: list[str]
    has_stats: bool
    still: list[str] = field(default_factory=list)
    is_still_read: bool = False


@dataclass(frozen=True)
class TaskFacts:
    """A task.

    Attributes:
        text: Its sentence.
        episodes: Episodes with frames of it.
        frames: Frames of it.
    """

    text: str
    episodes: int
    frames: int


@dataclass(frozen=True)
class CameraView:
    """What one camera shows in a frame.

    Attributes:
        camera: Its feature.
        rgb: (H, W, 3) uint8.
        depth: (h, w, 3) uint8, as the generator learns it; None without depth.
        depth_range: Nearest and farthest valid distance in metres; None without any.
        invalid: Share of depth pixels that are not valid.
    """

    camera: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint8] | None = None
    depth_range: tuple[float, float] | None = None
    invalid: float = 0.0


@dataclass(frozen=True)
class ShownFrame:
    """A frame to look at.

    Attributes:
        index: In the whole dataset.
        episode: That it belongs to.
        timestamp: In the episode, in seconds.
        task: Its sentence.
        views: One per camera.
        messages: What `gem` learns to answer.
    """

    index: int
    episode: int
    timestamp: float
    task: str
    views: list[CameraView]
    messages: list[Message]


@dataclass(frozen=True)
class Inspection:
    """All that a check finds out about a dataset.

    Attributes:
        repo_id: LeRobot's name of it.
        root: Its folder.
        robot: Type of robot.
        fps: Frames per second.
        episodes: How many are used.
        frames: How many are used.
        stages: All four.
        asked: The stage that was asked about; None for whichever the dataset is made for.
        sampled: Frames whose images were looked at.
        padding: Share of the actions of all chunks that lie past the end of their episode and carry no loss.
        cameras: RGB cameras.
        depth: Depth cameras.
        language: Language rows.
        messages: Frames with an entry in the column `messages`; None without that column.
        prompts: Of `gem` and `gem_vla`, as far as they can be trained.
        vectors: Actions and state.
        tasks: The most frequent first.
        outside: Cameras that LeRobot hands to no policy, for their names.
        state_like: Vectors that may be the state, where the dataset has none of that name.
        unread: Vectors that no policy reads -> frames with NaN or infinite values.
        colormap: How the depth of `shown` is painted.
        shown: Frames to look at.
    """

    repo_id: str
    root: Path
    robot: str | None
    fps: float
    episodes: int
    frames: int
    stages: list[StageFacts] = field(default_factory=list)
    asked: str | None = None
    sampled: int = 0
    padding: float | None = None
    cameras: list[CameraFacts] = field(default_factory=list)
    depth: list[DepthFacts] = field(default_factory=list)
    language: list[LanguageFacts] = field(default_factory=list)
    messages: int | None = None
    prompts: list[PromptFacts] = field(default_factory=list)
    vectors: list[VectorFacts] = field(default_factory=list)
    tasks: list[TaskFacts] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    state_like: list[str] = field(default_factory=list)
    unread: Mapping[str, int] = field(default_factory=dict)
    colormap: Colormap = "spectral"
    shown: list[ShownFrame] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """What training would raise: in the stage that was asked about, else in those that the dataset is made for."""
        if self.asked is not None:
            judged = [stage for stage in self.stages if stage.name == self.asked]
        else:
            judged = [stage for stage in self.stages if stage.lacking is None] or self.stages
        return list(dict.fromkeys(error for stage in judged for error in stage.errors))
