"""Simulates attempts at LIBERO tasks and keeps their frames on disk: what the worker processes do."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.recorder import FrameLanguage, QuestionRecorder
from lerobot_gem.simulation.placements import apply_benchmark, apply_wide, stream_rng, wide_placement
from lerobot_gem.simulation.scene import LiberoScene
from lerobot_gem.simulation.scripted_policies import ScriptedPickAndPlace, make_scripted_policy
from lerobot_gem.storage.single_frames import encode, store_frames

# Random scenes that are simulated, and kept, as one piece of work.
SCENES_PER_BATCH = 50
# Of the scenes: those where the arm is where episodes start tell how to begin, which an episode tells only once.
_HOLDING_SHARE, _START_SHARE = 0.3, 0.3
# Seconds after which a scripted policy that has not succeeded is given up; its successes take 5 to 8.
_TIME_LIMIT = 16.0
# Of each mesh in `scenes` mode: 99 % of the pixels of 128 px pictures keep their depth to 1 cm, at a tenth of the time.
_MESH_TRIANGLES = 500
# Files in the folder of an attempt.
_FRAMES, _LANGUAGE = "frames.parquet", "language.json"

Frame = dict[str, NDArray[Any]]
_scene: LiberoScene | None = None


@dataclass(frozen=True)
class Attempt:
    """One piece of work, identified by task and number: a try of the task, or a batch of random scenes."""

    task_id: int
    number: int
    scenes: bool = False

    @property
    def name(self) -> str:
        return f"task{self.task_id:02d}_{'frames' if self.scenes else 'attempt'}{self.number:06d}"


def _scene_of(config: LiberoDemosConfig, task_id: int) -> LiberoScene:
    """This process's scene: building one costs ten seconds, and each holds a GL context."""
    global _scene
    size = config.image_size
    triangles = _MESH_TRIANGLES if config.mode == "scenes" else None
    wanted = (config.suite, task_id, triangles)
    if _scene is None or (_scene.suite, _scene.task_id, _scene.renderer.mesh_triangles) != wanted:
        close_scene()
        _scene = LiberoScene(config.suite, task_id, config.fps, size, size, config.multisampling, triangles)
    return _scene


def close_scene() -> None:
    """Free this process's scene."""
    global _scene
    if _scene is not None:
        _scene.close()
    _scene = None


def _recorder(
    config: LiberoDemosConfig, attempt: Attempt, scene: LiberoScene, policy: ScriptedPickAndPlace
) -> QuestionRecorder | None:
    if config.qa is None:
        return None
    rng = stream_rng("questions", config.seed, int(attempt.scenes), attempt.task_id, attempt.number)
    return QuestionRecorder(config.qa, scene, policy, rng)


def run_attempt(
    config: LiberoDemosConfig, attempt: Attempt
) -> tuple[list[Frame], list[FrameLanguage] | None] | None:
    """Simulate one attempt at a task.

    Returns:
        Its frames, keyed as in `dataset_features`, and what can be said about each if the collection asks questions;
        None when the scripted policy did not succeed.
    """
    from lerobot_gem.simulation.arm_poses import ArmPoses

    scene = _scene_of(config, attempt.task_id)
    rng = stream_rng("training", config.seed, 0, attempt.task_id, attempt.number)
    if config.placement == "wide":
        apply_wide(scene, rng)
    else:
        apply_benchmark(scene, attempt.number)
    policy = make_scripted_policy(scene)
    if config.random_start and not ArmPoses(scene, policy).place_free(rng):
        return None
    recorder = _recorder(config, attempt, scene, policy)
    stride = max(1, round(config.qa.interval * config.fps)) if config.qa else 1
    frames: list[Frame] = []
    for number in range(round(_TIME_LIMIT * config.fps)):
        action = policy.action()
        frames.append({**scene.observation(config.depth), "action": action})
        if recorder:
            recorder.see(action, ask=number % stride == 0)
        executed = action.copy()
        executed[:3] += rng.normal(0.0, config.action_noise, 3)
        if scene.step(np.clip(executed, -1.0, 1.0)):
            return frames, recorder.demonstration(config.fps) if recorder else None
    return None


def run_scenes(config: LiberoDemosConfig, batch: Attempt) -> tuple[list[Frame], list[FrameLanguage] | None]:
    """`SCENES_PER_BATCH` unrelated frames, as `run_attempt` returns them."""
    from lerobot_gem.simulation.arm_poses import ArmPoses

    scene = _scene_of(config, batch.task_id)
    policy = make_scripted_policy(scene)
    poses = ArmPoses(scene, policy)
    recorder = _recorder(config, batch, scene, policy)
    frames: list[Frame] = []
    rng = stream_rng("training", config.seed, 1, batch.task_id, batch.number)
    while len(frames) < SCENES_PER_BATCH:
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
            action = policy.action()
            frames.append({**scene.observation(config.depth), "action": action})
            if recorder:
                recorder.see(action, ask=True)
    return frames, recorder.unrelated() if recorder else None


def store_attempt(config: LiberoDemosConfig, attempt: Attempt, staging: Path) -> bool:
    """Simulate an attempt and keep its frames, encoded; returns whether it succeeded. Complete or absent on disk."""
    result = run_scenes(config, attempt) if attempt.scenes else run_attempt(config, attempt)
    final = staging / attempt.name
    partial = staging / f".{attempt.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if result is not None:
        frames, language = result
        if attempt.scenes:
            store_frames(frames, partial / _FRAMES)
        else:
            _store_demonstration(frames, partial)
        if language is not None:
            (partial / _LANGUAGE).write_text(json.dumps([frame.to_json() for frame in language]))
    partial.rename(final)
    return result is not None


def _store_demonstration(frames: list[Frame], folder: Path) -> None:
    for key in frames[0]:
        values = [frame[key] for frame in frames]
        if not key.startswith("observation.images."):
            np.save(folder / f"{key}.npy", np.stack(values))
            continue
        (folder / key).mkdir()
        # LeRobot reads depth of a file name ending so with all its bits when it computes statistics; Pillow looks inside.
        suffix = "tiff" if key.endswith("_depth") else "bmp"
        for index, picture in enumerate(values):
            (folder / key / f"frame-{index:06d}.{suffix}").write_bytes(encode(picture))


def succeeded(folder: Path) -> bool:
    """Whether the attempt that was stored in a folder has frames."""
    return (folder / "action.npy").exists() or (folder / _FRAMES).exists()


def stored_frames(folder: Path) -> Path:
    """The file in which a batch of scenes has its frames."""
    return folder / _FRAMES


def stored_language(folder: Path) -> list[FrameLanguage]:
    """What can be said about each frame of a stored attempt."""
    return [FrameLanguage.from_json(values) for values in json.loads((folder / _LANGUAGE).read_text())]
