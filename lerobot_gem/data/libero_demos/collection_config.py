"""What `lerobot-gem-libero-demos` collects."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.rounds import CollectionOptions
from lerobot_gem.simulation.placements import PLACEMENTS
from lerobot_gem.simulation.scene_changes import LIBEROS_OWN, Amount, SceneChanges
from lerobot_gem.storage.output_folder import OutputDataset
from lerobot_gem.validation import require, require_at_least

MODES = ("demonstrations", "scenes")

_OF_ATTEMPTS = ("placement", "action_noise", "random_start")
# Not read where scenes alone are collected, and where recorded demonstrations are shown.
_OF_DEMONSTRATIONS = ("episodes_per_task", *_OF_ATTEMPTS)
_OF_SIMULATION = ("mode", "scenes_per_task", "camera_turn", "table_height", "named_object", *_OF_ATTEMPTS)


@dataclass
class LiberoDemosConfig(CollectionOptions):
    """What to collect, and where to put it.

    Attributes:
        output: The dataset; its folder must not exist unless `overwrite` says so.
        source: Folder of LIBERO's own HDF5 files of the suite, whose demonstrations are shown again; None lets the scripted
            policy demonstrate. Placements, noise and starts are then the recorded ones.
        drop_noops: With `source`, leave out frames in which nothing is done, as OpenVLA publishes LIBERO.
        suite: LIBERO suite.
        task_ids: Tasks of the suite; all of them when empty.
        mode: `demonstrations`, or `scenes` alone: no demonstrations, meshes drawn with as many triangles as the
            image can show, an object that is held placed between the fingers instead of gripped.
        episodes_per_task: Successful demonstrations for each task; 0 in `scenes` mode. With `source` at most this
            many, in the file's order.
        scenes_per_task: Episodes of one frame for each task, behind its demonstrations: a random wide placement seen
            from the robot's first pose or a random one, free or holding the target, and labelled with the
            scripted policy's action.
        placement: `wide` or `benchmark`, of the demonstrations. Wide placements, scenes and random starts are for suites
            in `WIDE_RULES`.
        camera_turn: Degrees that the fixed camera is turned, as in `--env.type=libero_wide`; of wide placements and scenes.
        table_height: Metres that the ground is raised, in the same way.
        named_object: Object that is named in the instruction, and picked up, in place of the task's own, as in
            `--env.type=libero_wide`: `milk`, `other` or `any`, drawn for each demonstration and each 50 scenes. Has no questions.
        fps: Control steps, and frames, per second.
        image_size: Height and width of both cameras in pixels.
        depth: Store both cameras' depth in metres.
        qa: Questions about what the cameras show, and sub-tasks, from the simulator's state; None for neither.
        action_noise: Standard deviation of Gaussian noise on the translation that is executed; the recorded action
            stays the scripted policy's (DART, Laskey et al. 2017). 1 is full scale; with 0.1 to 0.2 the policy still
            succeeds.
        random_start: Start demonstrations from a random arm pose.
        multisampling: MuJoCo's 4x antialiasing, off by default in collection: it doubles the cost of an image.
        seed: Of placements, poses and noise.
        num_workers: Processes of this machine that simulate; 1 stays in this process.
    """

    output: OutputDataset
    source: Path | None = None
    drop_noops: bool = True
    suite: str = "libero_object"
    task_ids: list[int] = field(default_factory=list)
    mode: str = "demonstrations"
    episodes_per_task: int = 50
    scenes_per_task: int = 0
    placement: str = "wide"
    camera_turn: Amount = 0.0
    table_height: Amount = 0.0
    named_object: str = ""
    fps: int = 20
    image_size: int = 128
    depth: bool = True
    qa: QuestionsConfig | None = None
    action_noise: float = 0.0
    random_start: bool = False
    multisampling: bool = False
    seed: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        self.check_work()
        self.source = None if self.source is None else Path(self.source)
        require(self.mode, MODES, "mode")
        self._refuse_unread()
        if self.mode == "scenes":
            self.episodes_per_task = 0
            if self.scenes_per_task == 0:
                raise ValueError(
                    "mode=scenes collects scenes alone: say how many with --scenes_per_task=1000."
                )
        require(self.placement, PLACEMENTS, "placement")
        require_at_least(self, episodes_per_task=0, scenes_per_task=0, seed=0, action_noise=0)
        require_at_least(self, fps=1, image_size=16, num_workers=1)
        if not self.episodes_per_task and not self.scenes_per_task:
            raise ValueError("episodes_per_task and scenes_per_task are both 0: there is nothing to collect.")
        if self.changes() != LIBEROS_OWN and self.episodes_per_task and self.placement != "wide":
            raise ValueError(
                f"camera_turn and table_height change wide placements, but placement is {self.placement}."
            )
        if self.named_object and self.qa is not None:
            raise ValueError(
                f"Questions are about the task's own object, but named_object is {self.named_object!r}: leave out qa, or collect "
                "questions in a run of their own."
            )

    def changes(self) -> SceneChanges:
        """What differs from LIBERO's scene."""
        return SceneChanges(self.camera_turn, self.table_height)

    @property
    def _unread(self) -> tuple[str, ...]:
        """Fields that say nothing of this collection."""
        if self.source is not None:
            return _OF_SIMULATION
        return _OF_DEMONSTRATIONS if self.mode == "scenes" else ()

    def _refuse_unread(self) -> None:
        # 0 asks for nothing.
        given = [name for name in self._unread if getattr(self, name) not in (getattr(type(self), name), 0)]
        if not given:
            return
        wrong = ", ".join(f"{name}={getattr(self, name)}" for name in given)
        if self.source is not None:
            raise ValueError(
                f"{wrong} can't be combined with source={str(self.source)!r}: recorded demonstrations are shown as they are. "
                "Collect scenes in a run of their own."
            )
        raise ValueError(
            f"{wrong} can't be combined with mode=scenes, which collects no demonstrations: leave it out, or leave out the mode, to "
            "collect demonstrations and scenes."
        )

    def content(self) -> dict[str, Any]:
        """Everything that decides what an attempt looks like: must agree between a run and its continuation."""
        of_source = ("source", "drop_noops") if self.source is None else ()
        deciding = self.deciding(
            "task_ids", "episodes_per_task", "scenes_per_task", *self._unread, *of_source
        )
        return {key: str(value) if isinstance(value, Path) else value for key, value in deciding.items()}
