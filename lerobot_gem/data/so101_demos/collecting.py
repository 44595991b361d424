"""Demonstrations of a simulated SO-101 arm with metric depth, as a LeRobotDataset v3.0.

The scripted expert of `lerobot-env-so101` demonstrates. An attempt is a function of (seed, its number) alone.
"""

import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lerobot_gem.simulation.so101_setup import require_so101
from lerobot_gem.storage.images import image_features
from lerobot_gem.storage.output_folder import (
    OutputDataset,
    check_output,
    explained_full_disk,
    publish,
    removed_on_error,
)

# Seconds after which an attempt is given up; successes take 6 to 7.
_TIME_LIMIT = 12.0
# An expert that fails more often than every second time is broken, and collecting would never end.
_MOST_ATTEMPTS = 2


@dataclass
class SO101DemosConfig:
    """What to collect, and where to put it.

    Attributes:
        output: The dataset; its folder must not exist unless `overwrite` says so.
        episodes: Successful demonstrations.
        fps: Control steps, and frames, per second.
        image_size: Height and width of both cameras in pixels.
        depth: Store both cameras' depth in metres.
        action_noise: Standard deviation of Gaussian noise on the movement that is executed; the recorded action stays the
            expert's (DART, Laskey et al. 2017). 1 is full speed; with 0.06 the expert still succeeds.
        quick: Draw without shadows and antialiasing, and meshes with fewer triangles, as `--env.type=gem_so101` does.
        seed: Of placements and noise.
        overwrite: Replace the dataset at `output.root`.
    """

    output: OutputDataset
    episodes: int = 50
    fps: int = 10
    image_size: int = 128
    depth: bool = True
    action_noise: float = 0.04
    quick: bool = True
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("episodes", "fps", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1.")
        for name in ("action_noise", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0.")


def collect(config: SO101DemosConfig) -> int:
    """Collect demonstrations and write the dataset.

    Returns:
        The number of attempts that it took.

    Raises:
        ModuleNotFoundError: The simulator is not installed.
        FileExistsError: Something is at `output.root`, and `overwrite` is off or it is no dataset.
        RuntimeError: The expert fails too often.
        OSError: The disk is full.
    """
    require_so101()
    root = config.output.root
    check_output(root, config.overwrite)
    partial = root.with_name(root.name + ".writing")
    shutil.rmtree(partial, ignore_errors=True)
    with (
        removed_on_error(partial),
        explained_full_disk(root, "Free some space and run the same command again."),
    ):
        attempts = _write(config, partial)
        publish(partial, root)
    return attempts


def _write(config: SO101DemosConfig, root: Path) -> int:
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from tqdm.auto import tqdm

    from lerobot_gem.simulation.so101_scene import TASK, SO101Scene

    datasets.disable_progress_bars()  # one bar per episode otherwise
    dataset = LeRobotDataset.create(
        config.output.repo_id,
        fps=config.fps,
        features=dataset_features(config.image_size, config.depth),
        root=root,
        robot_type="so101_follower",
        use_videos=False,
    )
    attempts = 0
    with (
        closing(SO101Scene(config.fps, config.image_size, config.image_size, config.quick)) as scene,
        tqdm(total=config.episodes, unit="demonstration") as progress,
    ):
        while progress.n < config.episodes:
            if attempts >= _MOST_ATTEMPTS * max(progress.n, 10):
                raise RuntimeError(
                    f"The scripted expert succeeded in {progress.n} of {attempts} attempts with action_noise={config.action_noise}: "
                    "expected at least every second one. Lower --action_noise."
                )
            frames = demonstrate(scene, config, attempts)
            attempts += 1
            if frames is None:
                continue
            for frame in frames:
                dataset.add_frame({**frame, "task": TASK})
            dataset.save_episode()
            progress.update()
    dataset.finalize()
    return attempts


def demonstrate(scene: Any, config: SO101DemosConfig, attempt: int) -> list[dict[str, NDArray[Any]]] | None:
    """The frames of an attempt; None when it does not succeed.

    Args:
        scene: A `SO101Scene`.
        config: Of the collection.
        attempt: Its number.
    """
    from lerobot_gem.simulation.placements import stream_rng
    from lerobot_gem.simulation.so101_scene import CAMERAS

    rng = stream_rng("training", config.seed, attempt)
    scene.reset(rng)
    frames = []
    for _ in range(round(_TIME_LIMIT * config.fps)):
        action = scene.expert_action()
        frame: dict[str, NDArray[Any]] = {"observation.state": scene.state(), "action": action}
        for camera in CAMERAS:
            picture, metres = scene.draw(camera, depth=config.depth)
            frame[f"observation.images.{camera}"] = picture
            if metres is not None:
                frame[f"observation.images.{camera}_depth"] = metres[..., None]
        frames.append(frame)
        executed = action.copy()
        executed[:3] += rng.normal(0.0, config.action_noise, 3)
        solved, is_over = scene.step(executed)
        if is_over:
            return frames if solved else None
    return None


def dataset_features(size: int, depth: bool) -> dict[str, dict[str, Any]]:
    """LeRobot features of the dataset: what `--env.type=gem_so101` shows, motors named as `so101_follower` does, depth."""
    from lerobot_gem.simulation.so101_scene import ACTION_NAMES, CAMERAS, MOTORS

    features = image_features(CAMERAS, size, size, depth=depth)
    motors = [f"{motor}.pos" for motor in MOTORS]
    features["observation.state"] = {"dtype": "float32", "shape": (len(motors),), "names": motors}
    features["action"] = {"dtype": "float32", "shape": (len(ACTION_NAMES),), "names": list(ACTION_NAMES)}
    return features
