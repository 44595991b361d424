"""Demonstrations from the LIBERO simulator, with metric depth, as a LeRobotDataset v3.0.

Every attempt is a function of (seed, task, attempt number) alone, so that it does not matter how many processes share
the work or how often the run was interrupted. A finished attempt is kept on disk at once, in a folder beside the data
set; when there are enough of them, the data set is written from those files and the folder disappears.
"""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lerobot_gem.data.single_frames import split_into_frames
from lerobot_gem.data.worker_pool import worker_pool
from lerobot_gem.simulation.experts import EXPERTS, make_expert
from lerobot_gem.simulation.libero_setup import require_libero
from lerobot_gem.simulation.placements import (
    PLACEMENTS,
    apply_benchmark,
    apply_wide,
    layout_rng,
    require_wide,
    wide_layout,
)
from lerobot_gem.simulation.scene import ACTION_DIM, CAMERAS, STATE_DIM, LiberoScene

# Random scenes that are simulated, and kept, as one piece of work.
SCENES_PER_BATCH = 50
# Of the scenes: those where the arm is where episodes start tell how to begin, which an episode tells only once.
_HOLDING_SHARE, _START_SHARE = 0.3, 0.3
# Seconds after which an expert that has not succeeded is given up; its successes take 5 to 8.
_TIME_LIMIT = 16.0
# An expert that fails more often than this is broken, and collecting would never end.
_MIN_SUCCESS = 1 / 4


@dataclass
class LiberoDemosConfig:
    """What to collect and where to put it.

    Attributes:
        root: folder of the data set; must not exist unless `resume` or `overwrite` says so.
        repo_id: LeRobot's name of the data set.
        suite: LIBERO suite.
        task_ids: tasks of the suite; all of them when empty.
        episodes_per_task: successful demonstrations for each task.
        scenes_per_task: episodes of one frame for each task, behind its demonstrations: a random wide layout seen
            from the robot's first pose or a random one, free or holding the target, and labelled with the expert's
            action.
        placement: `wide` or `benchmark`, of the demonstrations. Wide layouts, scenes and random starts are for suites
            in `WIDE_RULES`.
        fps: control steps, and frames, per second.
        image_size: height and width of both cameras in pixels.
        depth: store both cameras' depth in metres.
        action_noise: standard deviation of Gaussian noise on the translation that is executed; the recorded action
            stays the expert's (DART, Laskey et al. 2017). 1 is full scale, 0.1 to 0.2 leave the expert its success.
        random_start: start demonstrations from a random arm pose.
        multisampling: MuJoCo's 4x antialiasing, off by default in collection: it doubles the cost of a picture.
        seed: of layouts, poses and noise.
        num_workers: processes that simulate; 1 stays in this process.
        resume: go on with an interrupted collection.
        overwrite: delete what is at `root` first.
    """

    root: Path
    repo_id: str = "local/libero_demos"
    suite: str = "libero_object"
    task_ids: list[int] = field(default_factory=list)
    episodes_per_task: int = 50
    scenes_per_task: int = 0
    placement: str = "wide"
    fps: int = 20
    image_size: int = 128
    depth: bool = True
    action_noise: float = 0.0
    random_start: bool = False
    multisampling: bool = False
    seed: int = 0
    num_workers: int = 1
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        if self.placement not in PLACEMENTS:
            raise ValueError(f"placement is one of {', '.join(PLACEMENTS)}, but is {self.placement!r}.")
        least = {"episodes_per_task": 0, "scenes_per_task": 0, "seed": 0, "action_noise": 0}
        for name, bound in {**least, "fps": 1, "image_size": 16, "num_workers": 1}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, but is {getattr(self, name)}.")
        if not self.episodes_per_task and not self.scenes_per_task:
            raise ValueError("episodes_per_task and scenes_per_task are both 0: there is nothing to collect.")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite contradict each other: choose one.")

    def content(self) -> dict[str, Any]:
        """Everything that decides what an attempt looks like: must agree between a run and its continuation."""
        others: tuple[str, ...] = ("root", "repo_id", "num_workers", "resume", "overwrite")
        others += ("task_ids", "episodes_per_task", "scenes_per_task")
        return {key: value for key, value in asdict(self).items() if key not in others}


@dataclass(frozen=True)
class Attempt:
    """One piece of work, identified by task and number: a try of the task, or a batch of random scenes."""

    task_id: int
    number: int
    scenes: bool = False

    @property
    def name(self) -> str:
        return f"task{self.task_id:02d}_{'scenes' if self.scenes else 'attempt'}{self.number:06d}"


@dataclass(frozen=True)
class TaskReport:
    """How often the expert solved a task: successes of attempts."""

    task_id: int
    instruction: str
    successes: int
    attempts: int


def dataset_features(height: int, width: int, depth: bool) -> dict[str, dict[str, Any]]:
    """LeRobot features of the data set: keys and shapes of LeRobot's libero env, plus depth in metres."""
    features: dict[str, dict[str, Any]] = {}
    for camera in CAMERAS:
        key, names = f"observation.images.{camera}", ["height", "width", "channels"]
        features[key] = {"dtype": "image", "shape": (height, width, 3), "names": names}
        if depth:
            features[f"{key}_depth"] = {
                "dtype": "image",
                "shape": (height, width, 1),
                "names": names,
                "info": {"is_depth_map": True, "depth_unit": "m"},
            }
    state = [*(f"eef.{a}" for a in ("x", "y", "z")), *(f"eef.r{a}" for a in ("x", "y", "z"))]
    state += ["gripper.0", "gripper.1"]
    action = [*(f"delta.{a}" for a in ("x", "y", "z", "rx", "ry", "rz")), "gripper"]
    features["observation.state"] = {"dtype": "float32", "shape": (STATE_DIM,), "names": state}
    features["action"] = {"dtype": "float32", "shape": (ACTION_DIM,), "names": action}
    return features


# -- simulation, in the worker processes -----------------------------------------------------------------------------

Frame = dict[str, NDArray[Any]]
_scene: LiberoScene | None = None


def _scene_of(config: LiberoDemosConfig, task_id: int) -> LiberoScene:
    """This process's scene: building one costs ten seconds, and each holds a GL context."""
    global _scene
    if _scene is None or (_scene.suite, _scene.task_id) != (config.suite, task_id):
        if _scene is not None:
            _scene.close()
        size = config.image_size
        _scene = LiberoScene(config.suite, task_id, config.fps, size, size, config.multisampling)
    return _scene


def run_attempt(config: LiberoDemosConfig, attempt: Attempt) -> list[Frame] | None:
    """Simulate one attempt at a task.

    Returns:
        Its frames, keyed as in `dataset_features`, or None when the expert did not succeed.
    """
    from lerobot_gem.simulation.arm_poses import ArmPoses

    scene = _scene_of(config, attempt.task_id)
    rng = layout_rng("training", config.seed, 0, attempt.task_id, attempt.number)
    if config.placement == "wide":
        apply_wide(scene, rng)
    else:
        apply_benchmark(scene, attempt.number)
    expert = make_expert(scene)
    if config.random_start and not ArmPoses(scene, expert).place_free(rng):
        return None
    frames: list[Frame] = []
    for _ in range(round(_TIME_LIMIT * config.fps)):
        action = expert.action()
        frames.append({**scene.observation(config.depth), "action": action})
        executed = action.copy()
        executed[:3] += rng.normal(0.0, config.action_noise, 3)
        if scene.step(np.clip(executed, -1.0, 1.0)):
            return frames
    return None


def run_scenes(config: LiberoDemosConfig, batch: Attempt) -> list[Frame]:
    """`SCENES_PER_BATCH` unrelated frames, keyed as in `dataset_features`."""
    from lerobot_gem.simulation.arm_poses import ArmPoses

    scene = _scene_of(config, batch.task_id)
    expert = make_expert(scene)
    poses = ArmPoses(scene, expert)
    frames: list[Frame] = []
    rng = layout_rng("training", config.seed, 1, batch.task_id, batch.number)
    while len(frames) < SCENES_PER_BATCH:
        # Objects are placed where they rest and the arm where it stays: no reset, nothing to settle.
        scene.place(wide_layout(scene, rng))
        draw = rng.random()
        if draw < _HOLDING_SHARE:
            placed = poses.place_holding(rng)
        elif draw < _HOLDING_SHARE + _START_SHARE:
            placed = poses.place_at_start()
        else:
            placed = poses.place_free(rng)
        if placed:
            frames.append({**scene.observation(config.depth), "action": expert.action()})
    return frames


def _store_attempt(config: LiberoDemosConfig, attempt: Attempt, staging: Path) -> bool:
    """Simulate an attempt and keep its frames, encoded; returns whether it succeeded. Complete or absent on disk."""
    frames = run_scenes(config, attempt) if attempt.scenes else run_attempt(config, attempt)
    final = staging / attempt.name
    partial = staging / f".{attempt.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if frames is not None:
        for key in frames[0]:
            if key.startswith("observation.images."):
                _store_images(partial / key, [frame[key] for frame in frames])
            else:
                np.save(partial / f"{key}.npy", np.stack([frame[key] for frame in frames]))
    partial.rename(final)
    return frames is not None


def _store_images(folder: Path, images: list[NDArray[Any]]) -> None:
    """Lossless and quick to read: BMP for (H, W, 3) uint8, TIFF (as LeRobot's own) for (H, W, 1) float32.

    LeRobot's reader decodes the images of every frame of an action chunk, not only of the frame that it delivers, so
    that the decoder decides how fast training reads: BMP takes a tenth of the time of PNG and twice its space.
    """
    folder.mkdir()
    for index, image in enumerate(images):
        if image.shape[-1] == 3:
            Image.fromarray(image).save(folder / f"frame-{index:06d}.bmp")
        else:
            Image.fromarray(image[..., 0]).save(folder / f"frame-{index:06d}.tiff")


# -- collection, in the main process ---------------------------------------------------------------------------------


def _succeeded(folder: Path) -> bool:
    return (folder / "action.npy").exists()


def _staging(config: LiberoDemosConfig) -> Path:
    """The folder of finished attempts, made or checked; a data set at `root` is never touched without being told."""
    root, staging = config.root, config.root.with_name(config.root.name + ".attempts")
    if config.overwrite:
        for path in (root, staging):
            if path.exists():
                shutil.rmtree(path)
    if root.exists():
        raise FileExistsError(
            f"{root} exists already. Choose another --root, or pass --overwrite=true to replace it"
            + (", there is nothing to resume." if config.resume and not staging.exists() else ".")
        )
    settings = staging / "settings.json"
    content = json.dumps(config.content(), indent=1)
    if not staging.exists():
        staging.mkdir(parents=True)
        settings.write_text(content)
    elif not config.resume:
        raise FileExistsError(
            f"{staging} holds an unfinished collection. Pass --resume=true to go on with it, or --overwrite=true to "
            "start again."
        )
    elif settings.exists() and settings.read_text() != content:
        raise ValueError(
            f"The collection in {staging} was started with other settings:\n{settings.read_text()}\nbut now:\n"
            f"{content}\nResume with the same ones, or pass --overwrite=true to start again."
        )
    else:
        settings.write_text(content)
    return staging


def _outcomes(
    config: LiberoDemosConfig, task_id: int, scenes: bool, staging: Path, pool: Executor | None
) -> Iterator[tuple[Attempt, bool]]:
    """Attempts of a task as they finish, until exactly the wanted number of them have succeeded."""
    wanted = -(-config.scenes_per_task // SCENES_PER_BATCH) if scenes else config.episodes_per_task
    number, failures = 0, 0
    running: dict[Future[bool], Attempt] = {}
    while True:
        # Never more attempts than can all be needed: the set of attempts is then the same for any number of workers.
        while number < wanted + failures:
            attempt = Attempt(task_id, number, scenes)
            number += 1
            folder = staging / attempt.name
            if folder.exists():
                success = _succeeded(folder)
            elif pool is None:
                success = _store_attempt(config, attempt, staging)
            else:
                running[pool.submit(_store_attempt, config, attempt, staging)] = attempt
                continue
            failures += not success
            _give_up_if_hopeless(config, task_id, wanted, failures)
            yield attempt, success
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            attempt, success = running.pop(future), future.result()
            failures += not success
            _give_up_if_hopeless(config, task_id, wanted, failures)
            yield attempt, success


def _give_up_if_hopeless(config: LiberoDemosConfig, task_id: int, wanted: int, failures: int) -> None:
    if failures > 10 and failures > (1 / _MIN_SUCCESS - 1) * wanted:
        raise RuntimeError(
            f"The expert failed {failures} times while {wanted} successes were wanted in {config.suite} task {task_id} "
            f"(placement {config.placement}, action_noise {config.action_noise}): giving up. Lower --action_noise, or "
            "leave this task out with --task_ids."
        )


def collect(config: LiberoDemosConfig) -> list[TaskReport]:
    """Collect demonstrations and write the data set.

    Returns:
        One report per task.

    Raises:
        LiberoNotReadyError: LIBERO is not set up.
        FileExistsError: something is at `root` (or unfinished beside it) and neither `resume` nor `overwrite` is set.
        ValueError: a continuation with other settings, or an unknown suite or task.
        RuntimeError: the expert can't solve a task.
    """
    from tqdm.auto import tqdm

    require_libero()
    instructions = _instructions(config.suite)
    task_ids = sorted(set(config.task_ids)) or list(range(len(instructions)))
    for task_id in task_ids:
        if not 0 <= task_id < len(instructions):
            raise ValueError(
                f"{config.suite} has tasks 0 to {len(instructions) - 1}, but task_ids has {task_id}."
            )
    if config.suite not in EXPERTS:
        raise ValueError(
            f"There is no scripted expert for {config.suite}; there is for {', '.join(EXPERTS)}."
        )
    if config.placement == "wide" or config.scenes_per_task > 0 or config.random_start:
        require_wide(config.suite)
    staging = _staging(config)
    reports, episodes = [], []
    total = len(task_ids) * (config.episodes_per_task + config.scenes_per_task)
    # The workers are forked before a progress bar starts a thread, and before this process has a GL context.
    with (
        worker_pool(config.num_workers) as pool,
        tqdm(total=total, unit="episode", desc="collecting") as progress,
    ):
        for task_id in task_ids:
            for scenes in (False, True):
                outcomes: dict[Attempt, bool] = {}
                for attempt, success in _outcomes(config, task_id, scenes, staging, pool):
                    outcomes[attempt] = success
                    progress.update(success * (SCENES_PER_BATCH if scenes else 1))
                good = sorted((a for a, ok in outcomes.items() if ok), key=lambda a: a.number)
                episodes += [(staging / a.name, instructions[task_id], a) for a in good]
                if not scenes and config.episodes_per_task:
                    reports.append(TaskReport(task_id, instructions[task_id], len(good), len(outcomes)))
    _write_dataset(config, episodes, reports)
    shutil.rmtree(staging)
    return reports


def _instructions(suite: str) -> list[str]:
    from libero.libero import benchmark

    suites = benchmark.get_benchmark_dict()
    if suite not in suites:
        raise ValueError(f"Unknown LIBERO suite '{suite}'. Known: {', '.join(sorted(suites))}.")
    return [task.language for task in suites[suite]().tasks]


def _write_dataset(
    config: LiberoDemosConfig, episodes: list[tuple[Path, str, Attempt]], reports: list[TaskReport]
) -> None:
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from tqdm.auto import tqdm

    datasets.disable_progress_bars()  # one bar per episode otherwise
    # Written beside its final place and moved there when complete.
    partial = config.root.with_name(config.root.name + ".writing")
    shutil.rmtree(partial, ignore_errors=True)
    dataset = LeRobotDataset.create(
        config.repo_id,
        fps=config.fps,
        features=dataset_features(config.image_size, config.image_size, config.depth),
        root=partial,
        robot_type="panda",
        use_videos=False,
    )
    batches = []
    for folder, instruction, attempt in tqdm(episodes, desc="writing"):
        limit = None
        if attempt.scenes:
            batches.append(dataset.meta.total_episodes)
            limit = config.scenes_per_task - attempt.number * SCENES_PER_BATCH
        dataset.save_episode(episode_data=_episode_data(folder, instruction, dataset, limit))
    dataset.finalize()
    split_into_frames(partial, batches)
    report = {"settings": config.content(), "tasks": [asdict(r) for r in reports]}
    (partial / "collection.json").write_text(json.dumps(report, indent=1))
    partial.rename(config.root)


def _episode_data(folder: Path, instruction: str, dataset: Any, limit: int | None) -> dict[str, Any]:
    """An episode buffer as `LeRobotDataset.save_episode` takes it, with image files already encoded.

    Args:
        folder: of a finished attempt.
        instruction: the task's text.
        dataset: the LeRobotDataset that the episode goes to.
        limit: number of frames to take; all of them when None.
    """
    length = len(np.load(folder / "action.npy")[:limit])
    data: dict[str, Any] = {
        "size": length,
        "task": [instruction] * length,
        "episode_index": dataset.meta.total_episodes,
        "frame_index": np.arange(length),
        "timestamp": np.arange(length) / dataset.fps,
        "index": [],
        "task_index": [],
    }
    for key in dataset.meta.features:
        if key.startswith("observation.images."):
            data[key] = sorted(str(path) for path in (folder / key).iterdir())[:length]
        elif key not in data:
            data[key] = np.load(folder / f"{key}.npy")[:length]
    return data
