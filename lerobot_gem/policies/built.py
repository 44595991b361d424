"""What a policy was built with, which its checkpoint keeps."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class BuiltConfig:
    """What a policy was built with, so that its checkpoint needs no other file: written when it is built, never by hand.

    No option of the command line reaches it (`init=False`). For the same reason `dataclasses.replace` leaves it behind: copy a
    configuration with `copy.deepcopy`.

    Attributes:
        images: Fields of `CameraImages`: the cameras in prompt order, and how their frames become patches.
        depth_cameras: RGB key -> depth key, as found in the dataset that was bound.
        backbone: Fields of `Qwen3VLConfig`.
        generator: Fields of `DepthArchitecture`; empty where no depth is learned.
        expert: Fields of `ExpertArchitecture`; empty in `gem`.
        conditioning: What the expert reads; "states" in a checkpoint from before there was a choice.
        action_dim: Numbers in an action; 0 in `gem`.
        action_turn: Fields of `ActionTurn`, the fitted action tokens; empty where none are learned.
        questions: Where questions that are learned beside actions come from: "frames" of the robot, a second "dataset"; empty for none.
        stages_done: Stages that trained the weights, in order.
        steps_done: Steps that trained them since the policy was new; the next one draws by it (training/draws.py). 0 in a checkpoint
            that was trained before they were counted.
        random_expert: Whether the expert has the random weights that it was built and frozen with: the policy acts by tokens alone.
        one_step: Whether the weights were distilled to act in one step, which they do badly in more.
        acts_alone: Whether the checkpoint holds what acts and nothing else (`checkpoints/acting.py`).
        is_bounded: Whether `outlier_limit` holds; not in a checkpoint that was trained before there was one.
        still_state: Dimensions of the state that stand still in the dataset that was bound (processing/statistics.py).
        fps: Frames per second of that dataset; None in a checkpoint that was trained before this was kept.
        state_names: Names of the state's numbers there; empty where it names none.
        base_model: Hub id of the weights that training started from; empty where they were random, or a folder's that does
            not say where it is from.
        base_revision: Commit of `base_model`, where it is known.
        base_fingerprint: Of an adapter, what tells the weights that it was trained on from others (`checkpoints.files.fingerprint`); empty in
            a whole policy, and in an adapter that was trained before this was kept.
        versions: {package: version} that trained the weights last.
    """

    images: dict[str, Any] = field(default_factory=dict)
    depth_cameras: dict[str, str] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    generator: dict[str, Any] = field(default_factory=dict)
    expert: dict[str, Any] = field(default_factory=dict)
    conditioning: str = "states"
    action_dim: int = 0
    action_turn: dict[str, Any] = field(default_factory=dict)
    questions: str = ""
    stages_done: list[str] = field(default_factory=list)
    steps_done: int = 0
    random_expert: bool = False
    one_step: bool = False
    acts_alone: bool = False
    is_bounded: bool = False
    still_state: list[int] = field(default_factory=list)
    fps: float | None = None
    state_names: list[str] = field(default_factory=list)
    base_model: str = ""
    base_revision: str = ""
    base_fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
