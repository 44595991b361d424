"""Simulates attempts at LIBERO tasks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.attempt_files import (
    Attempt,
    Frame,
    Recording,
)
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.recorder import QuestionRecorder
from lerobot_gem.simulation.naming import arrived, choose_object, instruction_naming
from lerobot_gem.simulation.placements import apply_benchmark, apply_wide, stream_rng, wide_placement
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace, make_scripted_policy

# Of the scenes: those where the arm is where episodes start tell how to begin, which an episode tells only once.
_HOLDING_SHARE, _START_SHARE = 0.3, 0.3
# Seconds after which a scripted policy that has not succeeded is given up; its successes take 5 to 8.
_TIME_LIMIT = 16.0
# Of each mesh in `scenes` mode: 99 % of the pixels of 128 px images keep their depth to 1 cm, at a tenth of the time.
_MESH_TRIANGLES = 500


class OpenScene:
    """Keeps the scene that was used last: building one takes ten seconds, and each holds a GL context."""

    def __init__(self) -> None:
        self._scene: LiberoScene | None = None
        self._settings: tuple[Any, ...] = ()

    def get(self, *settings: Any) -> LiberoScene:
        """The scene that `LiberoScene(*settings)` is; one with other settings is closed first."""
        if self._scene is None or self._settings != settings:
            self.close()
            self._scene, self._settings = LiberoScene(*settings), settings
        return self._scene

    def close(self) -> None:
        """Free the scene, if there is one."""
        if self._scene is not None:
            self._scene.close()
        self._scene = None


# Each worker process has its own.
open_scene = OpenScene()


def simulate_demonstration(config: LiberoDemosConfig, attempt: Attempt) -> Recording | None:
    """Let the scripted policy try a task; None when it does not succeed."""
    from lerobot_gem.simulation.arm_poses import ArmPoses

    scene = scene_of(config, attempt)
    rng = stream_rng("training", config.seed, 0, attempt.task_id, attempt.number)
    if config.placement == "wide":
        apply_wide(scene, rng, config.changes())
    else:
        apply_benchmark(scene, attempt.number)
    named = _named(config, scene, rng)
    policy = make_scripted_policy(scene, named)
    if config.random_start and not ArmPoses(scene, policy).place_free(rng):
        return None
    recorder = Recorder(config, attempt, scene, policy)
    for _ in range(round(_TIME_LIMIT * config.fps)):
        action = policy.action()
        recorder.record(action)
        executed = action.copy()
        executed[:3] += rng.normal(0.0, config.action_noise, 3)
        solved = scene.step(np.clip(executed, -1.0, 1.0))
        if solved if named is None else arrived(scene, named):
            return recorder.demonstration()
    return None


def simulate_scenes(config: LiberoDemosConfig, batch: Attempt) -> Recording:
    """Unrelated frames of random placements and arm poses."""
    from lerobot_gem.simulation.arm_poses import ArmPoses

    scene = scene_of(config, batch)
    rng = stream_rng("training", config.seed, 1, batch.task_id, batch.number)
    policy = make_scripted_policy(scene, _named(config, scene, rng))
    poses = ArmPoses(scene, policy)
    recorder = Recorder(config, batch, scene, policy)
    while len(recorder.frames) < batch.scenes:
        config.changes().apply(scene, rng.spawn(1)[0])
        # Objects are placed where they rest and the arm where it stays: no reset, nothing to settle.
        scene.place(wide_placement(scene, rng))
        draw = rng.random()
        if draw < _HOLDING_SHARE:
            placed = poses.place_holding(rng, simulate=config.mode != "scenes")
        elif draw < _HOLDING_SHARE + _START_SHARE:
            placed = poses.place_at_start()
        else:
            placed = poses.place_free(rng)
        if placed:
            recorder.record(policy.action())
    return recorder.scenes()


def _named(config: LiberoDemosConfig, scene: LiberoScene, rng: np.random.Generator) -> str | None:
    """The object that an attempt is about; None for the task's own."""
    return choose_object(scene, config.named_object, rng.spawn(1)[0]) if config.named_object else None


def scene_of(config: LiberoDemosConfig, attempt: Attempt) -> LiberoScene:
    """The scene of an attempt's task, kept open for the next one."""
    size, triangles = config.image_size, _MESH_TRIANGLES if config.mode == "scenes" else None
    return open_scene.get(
        config.suite, attempt.task_id, config.fps, size, size, config.multisampling, triangles
    )


class Recorder:
    """Records an attempt, frame by frame: what the robot sees, what is done, and what can be asked.

    Args:
        config: Of the collection.
        attempt: Which one.
        scene: Its scene.
        policy: The scripted policy of its task; None where there is none.

    Attributes:
        frames: Those recorded so far.
    """

    def __init__(
        self,
        config: LiberoDemosConfig,
        attempt: Attempt,
        scene: LiberoScene,
        policy: ScriptedPickAndPlace | None,
    ):
        self.frames: list[Frame] = []
        self._config, self._scene = config, scene
        self._instruction: str | None = None
        if config.named_object and policy is not None:
            self._instruction = instruction_naming(scene, policy.target)
        self._questions: QuestionRecorder | None = None
        # One frame in so many gets questions.
        self._stride = 1
        if config.qa is not None:
            rng = stream_rng(
                "questions", config.seed, int(attempt.scenes > 0), attempt.task_id, attempt.number
            )
            self._questions = QuestionRecorder(config.qa, scene, policy, rng)
            interval = max(1, round(config.qa.interval * config.fps))
            self._stride = config.qa.scene_interval if attempt.scenes else interval

    def record(self, action: NDArray[np.float32]) -> None:
        """Record the present state as a frame.

        Args:
            action: (7,) what is done in it.
        """
        asked = len(self.frames) % self._stride == 0
        self.frames.append({**self._scene.observation(self._config.depth), "action": action})
        if self._questions is not None:
            self._questions.see(action, asked)

    def demonstration(self) -> Recording:
        """What was recorded, as consecutive frames."""
        questions = self._questions
        language = questions.demonstration(self._config.fps) if questions else None
        return Recording(self.frames, language, self._instruction)

    def scenes(self) -> Recording:
        """What was recorded, as unrelated frames."""
        language = self._questions.unrelated() if self._questions else None
        return Recording(self.frames, language, self._instruction)
