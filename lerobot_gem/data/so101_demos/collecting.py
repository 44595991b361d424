"""Demonstrations of a simulated SO-101 arm with metric depth, as a LeRobotDataset v3.0.

The scripted policy of `lerobot-env-so101` demonstrates. An attempt is a function of (seed, its number) alone, so that it does not matter
how many tasks share the work or how often the run was interrupted (data/rounds.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lerobot_gem.data.rounds import Collection, CollectionOptions, attempts_of_round
from lerobot_gem.processing.depth_cameras import depth_key
from lerobot_gem.simulation.so101_setup import require_so101
from lerobot_gem.storage.images import image_features
from lerobot_gem.storage.output_folder import (
    OutputDataset,
    complete_or_absent,
    published,
)
from lerobot_gem.storage.recorded_episodes import has_episode, read_episode, write_episode
from lerobot_gem.validation import require_at_least

# Seconds after which an attempt is given up; successes take 6 to 7.
_TIME_LIMIT = 12.0


@dataclass(kw_only=True)
class SO101DemosConfig(CollectionOptions):
    """What to collect, and where to put it.

    Attributes:
        output: The dataset; its folder must not exist unless `overwrite` says so.
        episodes: Successful demonstrations; a run that goes on may have other numbers of them.
        fps: Control steps, and frames, per second.
        image_size: Height and width of both cameras in pixels.
        depth: Store both cameras' depth in metres.
        action_noise: Standard deviation of Gaussian noise on the movement that is executed; the recorded action stays the
            scripted policy's (DART, Laskey et al. 2017). 1 is full speed; with 0.06 it still succeeds.
        quick: Draw without shadows and antialiasing, and meshes with fewer triangles, as `--env.type=gem_so101` does.
        seed: Of placements and noise.
        num_workers: Processes of this machine.
    """

    output: OutputDataset
    episodes: int = 50
    fps: int = 10
    image_size: int = 128
    depth: bool = True
    action_noise: float = 0.04
    quick: bool = True
    seed: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        self.check_work()
        require_at_least(self, episodes=1, fps=1, image_size=1, action_noise=0, seed=0, num_workers=1)

    def content(self) -> dict[str, Any]:
        """Everything that decides what an attempt looks like: must agree between a run and its continuation."""
        return self.deciding("episodes")


def collect(config: SO101DemosConfig) -> int | None:
    """Collect demonstrations and write the dataset.

    Returns:
        The number of attempts that it took; None where Slurm goes on with it.

    Raises:
        ModuleNotFoundError: The simulator or Ray is not installed.
        FileExistsError: Something is at `output.root` (or unfinished beside it) and neither `resume` nor `overwrite` is set, or it
            is no dataset.
        FileNotFoundError: There is no Slurm.
        ValueError: A continuation with other settings, or noise with which the scripted policy fails too often.
        ChildProcessError: A process was killed, or tasks failed on Ray.
        OSError: The disk is full.
    """
    require_so101()
    return _Collection(config).run()


class _Collection(Collection[SO101DemosConfig, int, int]):
    def folder(self, attempt: int) -> Path:
        """Of a finished attempt; without an episode if it did not succeed."""
        return self.staging / f"attempt{attempt:06d}"

    def attempts(self, number: int) -> range:
        """Numbers of a round's attempts."""
        return attempts_of_round(
            number,
            self.config.episodes,
            lambda one: has_episode(self.folder(one)),
            self._give_up_if_hopeless,
        )

    def write(self) -> int:
        """Write the dataset; returns the number of attempts."""
        made = range(next(one.start for number in count() if not (one := self.attempts(number))))
        _write(self.config, [self.folder(one) for one in made if has_episode(self.folder(one))])
        return len(made)

    def make(self, attempts: Sequence[int], is_alone: bool) -> None:
        """Make those attempts that are not there."""
        from tqdm.auto import tqdm

        missing = [one for one in attempts if not self.folder(one).exists()]
        if not missing:
            return
        scene = _scene(self.config.fps, self.config.image_size, self.config.quick)
        for attempt in tqdm(missing, unit="demonstration", disable=not is_alone):
            frames = demonstrate(scene, self.config, attempt)
            with complete_or_absent(self.folder(attempt)) as folder:
                if frames is not None:
                    write_episode(frames, folder)

    def _give_up_if_hopeless(self, failures: int) -> None:
        if failures > max(self.config.episodes, 10):
            raise ValueError(
                f"The scripted policy failed {failures} times while {self.config.episodes} successes were wanted, with "
                f"action_noise={self.config.action_noise}: expected at least every second attempt to succeed. Lower --action_noise."
            )


@cache
def _scene(fps: int, size: int, quick: bool) -> Any:
    """The scene of this process: building one takes seconds."""
    from lerobot_gem.simulation.so101_scene import SO101Scene

    return SO101Scene(fps, size, size, quick)


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
            key = f"observation.images.{camera}"
            frame[key] = picture
            if metres is not None:
                frame[depth_key(key)] = metres[..., None]
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


def _write(config: SO101DemosConfig, episodes: Iterable[Path]) -> None:
    """Write the dataset to the collection's root, where it appears when it is complete."""
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from lerobot_gem.simulation.so101_scene import TASK

    datasets.disable_progress_bars()  # one bar per episode otherwise
    with published(config.output.root, overwrite=config.overwrite) as writing:
        dataset = LeRobotDataset.create(
            config.output.repo_id,
            fps=config.fps,
            features=dataset_features(config.image_size, config.depth),
            root=writing,
            robot_type="so101_follower",
            use_videos=False,
        )
        for folder in episodes:
            dataset.save_episode(episode_data=read_episode(folder, TASK, dataset))
        dataset.finalize()
