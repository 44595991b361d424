"""Depth labels: a copy of a LeRobotDataset whose cameras have the depth that a model predicts.

An episode's depth is a function of the episode alone, so that it does not matter how many tasks share the work (data/executors.py) or
how often the run was interrupted. A finished episode is kept on disk at once, in a folder beside the new dataset; when all are
there, the dataset is written from them and the folder disappears. The labelled dataset is only read.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot_gem.data.depth_labels.depth_model import DepthModel, DepthModelConfig, DepthType
from lerobot_gem.data.executors import LocalExecutor, Phase, run_phases
from lerobot_gem.data.work_options import WorkOptions
from lerobot_gem.processing.depth_cameras import DEPTH_TYPE_KEY, depth_key, is_depth
from lerobot_gem.storage.depth_columns import add_depth_features
from lerobot_gem.storage.depth_files import DepthSummary, EpisodeDepthWriter
from lerobot_gem.storage.frames import CameraFrames
from lerobot_gem.storage.opening import DatasetOptions, open_dataset, require_current_format
from lerobot_gem.storage.output_folder import (
    OutputDataset,
    check_output,
    explained_full_disk,
    publish,
    removed_on_error,
)
from lerobot_gem.storage.unfinished_work import begun_or_resumed, check_unfinished
from lerobot_gem.validation import require, require_at_least

STORAGES = ("camera", "image")

_WORK = "labelling"  # in messages about unfinished ones
# Processes wait for the slowest, and the default of torch.distributed gives up after 10 to 30 minutes.
_PATIENCE = timedelta(days=30)


@dataclass
class LabelDepthConfig(WorkOptions):
    """What to label, with what, and where to put it.

    Attributes:
        dataset: The dataset to label, which stays as it is; all of its episodes.
        output: The dataset to write.
        model: The depth-estimation model.
        cameras: Features to label; all RGB cameras when empty.
        storage: How depth is stored: `camera`, as its camera is (videos beside videos), or `image`, which is quicker to read beside
            videos unless the policy has long action chunks (docs/how_to/label_depth.md).
        max_side: Longest side of the depth in pixels; None is its camera's. What is more than `depth.max_side` of the training
            (256 in the release's VLA stage) costs space and reading time alone.
        batch_size: Frames that go through the model together.
        num_workers: Processes that decode frames, for each task; 0 decodes in between.
    """

    dataset: DatasetOptions
    output: OutputDataset
    model: DepthModelConfig = field(default_factory=DepthModelConfig)
    cameras: list[str] = field(default_factory=list)
    storage: str = "camera"
    max_side: int | None = None
    batch_size: int = 16
    num_workers: int = 4

    def __post_init__(self) -> None:
        self.check_work()
        require_at_least(self, batch_size=1, num_workers=0, max_side=32)
        require(self.storage, STORAGES, "storage")
        if self.dataset.episodes is not None:
            raise ValueError(
                f"dataset.episodes={self.dataset.episodes}: a dataset is labelled as a whole. Leave --dataset.episodes out, "
                "or keep only these episodes with lerobot-edit-dataset first."
            )


@dataclass(frozen=True)
class LabelReport:
    """The depth of one camera.

    Attributes:
        key: Its feature.
        depth_type: `metric` or `relative`.
        frames: Labelled.
        usable: Share of the pixels that training takes for valid depth.
        nearest: Metres, in the whole dataset; 0 where the model predicted none somewhere.
        median: Metres, the mean of the episodes' medians.
        farthest: Metres.
    """

    key: str
    depth_type: str
    frames: int
    usable: float
    nearest: float
    median: float
    farthest: float


def label_depth(config: LabelDepthConfig) -> list[LabelReport] | None:
    """Label a dataset with depth. Started by `accelerate launch` or torchrun, the processes are the tasks.

    Returns:
        One report per camera; None in all processes but the main one, and where Slurm goes on with it.

    Raises:
        FileExistsError: Something is at `output.root` (or unfinished beside it), and neither `resume` nor `overwrite`
            is set, or it is no dataset. Or another run labels there.
        ValueError: `output.root` is in the dataset or around it; the dataset is not in format v3.0 or has no frames; a
            camera is unknown or has depth; the model can't be loaded or does not tell what it predicts; a continuation with
            other settings; an executor or tasks for processes that accelerate launched.
        FileNotFoundError: There is no Slurm, or the depth of an episode is missing at the end.
        ModuleNotFoundError: Ray is not installed.
        ChildProcessError: A process was killed, or tasks failed on Ray.
        OSError: The dataset can't be read, or the disk is full.
    """
    from accelerate import PartialState

    # Without cpu=True, processes that torchrun started on a machine without GPU would not know of each other.
    state = PartialState(cpu=not _has_accelerator(), timeout=_PATIENCE)
    is_launched = state.num_processes > 1
    if is_launched and (config.executor != "local" or config.tasks is not None):
        raise ValueError(
            f"executor={config.executor}, tasks={config.tasks} in one of {state.num_processes} processes that share the work already: "
            "expected neither, or no accelerate launch."
        )
    work = _Labelling(config, shows_progress=state.is_local_main_process and config.tasks in (None, 1))
    _check_room(config, config.output.root, work.staging)
    state.wait_for_everyone()
    with state.main_process_first():  # which fills the caches of datasets and models
        work.open()
    with _begun_or_resumed(work) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        phase = Phase("label", work.label)
        if not is_launched:
            return run_phases(
                config, work.staging, [phase], work.finish, processes=config.tasks or 1, forks=False
            )
        ranks = [state.process_index]
        LocalExecutor(phase, state.num_processes, work.staging, ranks=ranks).run()
        state.wait_for_everyone()
        return work.finish() if state.is_main_process else None


def _has_accelerator() -> bool:
    from accelerate.utils import parse_flag_from_env

    return torch.accelerator.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")


class _Labelling:
    """The steps of a labelling; each can be another process's, on another machine.

    Args:
        config: What to label.
        shows_progress: Whether this process has a progress bar; others never do.
    """

    def __init__(self, config: LabelDepthConfig, shows_progress: bool = False) -> None:
        self.config, self.shows_progress = config, shows_progress

    def __getstate__(self) -> dict[str, Any]:
        # What is open stays in its process.
        return {"config": self.config, "shows_progress": False}

    @property
    def staging(self) -> Path:
        """The folder of finished episodes."""
        root = self.config.output.root
        return root.with_name(root.name + ".labelling")

    @cached_property
    def dataset(self) -> Any:
        """The dataset to label."""
        return open_dataset(self.config.dataset)

    @cached_property
    def storage(self) -> dict[str, str]:
        """Camera to label -> how its depth is stored."""
        features = self.dataset.meta.features
        as_image = self.config.storage == "image"
        return {
            camera: "image" if as_image else features[camera]["dtype"]
            for camera in _choose_cameras(features, self.config.cameras)
        }

    @cached_property
    def folders(self) -> dict[int, Path]:
        """Episode -> folder of its depth."""
        return {
            episode: self.staging / f"episode-{episode:06d}" for episode in range(self.dataset.num_episodes)
        }

    @cached_property
    def depth_type(self) -> DepthType:
        """What the model predicts. Its files are looked at as a whole, but no weight is read."""
        return DepthModel.load(self.config.model, torch.device("meta")).depth_type

    def open(self) -> None:
        """Open the dataset and look at the model, so that what is wrong with them is found before any work."""
        _ = self.storage, self.depth_type  # each is found out at its first reading, and kept

    def label(self, rank: int, tasks: int) -> None:
        """Write the depth of a task's episodes that are not there, on a device of its own where there are several."""
        device = torch.device("cpu")
        if _has_accelerator():
            kind = torch.accelerator.current_accelerator()
            device = torch.device(kind.type if kind else "cpu", rank % torch.accelerator.device_count())
        share = [one for one in list(self.folders)[rank::tasks] if not self.folders[one].exists()]
        print(f"Process {rank + 1} of {tasks} on {device.type}: {len(share)} of {len(self.folders)} episodes")
        if not share:
            return
        model = DepthModel.load(self.config.model, device)
        chosen = {episode: self.folders[episode] for episode in share}
        with self._explained():
            _label_episodes(self.config, self.dataset, self.storage, model, chosen, self.shows_progress)

    def finish(self) -> list[LabelReport]:
        """Write the dataset.

        Raises:
            FileNotFoundError: Episodes are not labelled.
        """
        if missing := [episode for episode, folder in self.folders.items() if not folder.exists()]:
            raise FileNotFoundError(
                f"{self.staging} lacks the depth of the episodes {missing}: expected that of all {len(self.folders)}. Remove "
                f"{self.staging / 'tasks'}, where tasks are noted as complete, and go on with --resume=true."
            )
        with self._explained():
            return _write(self.config, self.dataset.root, self.staging, self.folders, self.storage)

    def _explained(self) -> AbstractContextManager[None]:
        advice = (
            f"Finished episodes are kept in {self.staging}: free some space and run the same command with --resume=true, or "
            "delete that folder."
        )
        return explained_full_disk(self.config.output.root, advice)


# -- what to label -----------------------------------------------------------------------------------------------------


def _choose_cameras(features: dict[str, dict[str, Any]], asked: Sequence[str]) -> list[str]:
    """The cameras to label.

    Raises:
        ValueError: One is unknown, not RGB, or has depth; or there is none.
    """
    images = {key: feature for key, feature in features.items() if feature["dtype"] in ("image", "video")}
    known = [key for key, feature in images.items() if not is_depth(feature) and 3 in feature["shape"]]
    if unknown := [camera for camera in asked if camera not in known]:
        raise ValueError(f"cameras names {unknown}, but the RGB cameras of the dataset are {known}.")
    if not known:
        raise ValueError(f"The dataset has no RGB camera to label: its features are {sorted(features)}.")
    cameras = list(dict.fromkeys(asked)) or known
    if labelled := [camera for camera in cameras if depth_key(camera) in features]:
        others = [camera for camera in known if depth_key(camera) not in features]
        raise ValueError(
            f"The cameras {labelled} have depth already ({', '.join(map(depth_key, labelled))}): choose others with "
            f"--cameras{f', which are {others}' if others else '; there are none'}."
        )
    return cameras


def _begun_or_resumed(work: _Labelling) -> AbstractContextManager[None]:
    settings = _settings(work.config, work.dataset, list(work.storage), work.depth_type)
    return begun_or_resumed(work.config, work.staging, settings, work=_WORK, decided_by="settings")


def _settings(config: LabelDepthConfig, dataset: Any, cameras: list[str], depth_type: str) -> dict[str, Any]:
    """Everything that decides what the labels are: must agree between a run and its continuation."""
    info = (dataset.root / "meta" / "info.json").read_bytes()
    return {
        "dataset": {"repo_id": config.dataset.repo_id, "info_sha256": hashlib.sha256(info).hexdigest()},
        "cameras": cameras,
        "storage": config.storage,
        "max_side": config.max_side,
        "model": _on_disk(asdict(config.model)),
        "depth_type": depth_type,
        "batch_size": config.batch_size,
    }


# -- where to put it -----------------------------------------------------------------------------------------------------


def _check_room(config: LabelDepthConfig, root: Path, staging: Path) -> None:
    """Check that nothing is where the dataset goes, but what the user said to replace or to continue."""
    source = require_current_format(config.dataset.repo_id, config.dataset.root).resolve()
    if root.resolve().is_relative_to(source) or source.is_relative_to(root.resolve()):
        raise ValueError(
            f"output.root is {root}, but the dataset to label, {source}, is never changed: choose a folder outside of it."
        )
    check_output(root, config.overwrite)
    check_unfinished(staging, config.resume or config.overwrite, _WORK)


# -- labelling -----------------------------------------------------------------------------------------------------------


def _label_episodes(
    config: LabelDepthConfig,
    dataset: Any,
    storage: Mapping[str, str],
    model: DepthModel,
    folders: dict[int, Path],
    show_progress: bool,
) -> None:
    """Write the depth of episodes to their folders."""
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    keys = {camera: depth_key(camera) for camera in storage}
    frames = CameraFrames(dataset, list(storage))
    # Never with frames of another episode: which frames share a batch changes the last bits of what a model predicts.
    batches = {
        episode: [(episode, indices) for indices in _batches(frames.frames_of(episode), config.batch_size)]
        for episode in folders
    }
    loader = iter(
        DataLoader(
            frames,
            sampler=[batch for parts in batches.values() for batch in parts],
            batch_size=None,
            num_workers=config.num_workers,
            multiprocessing_context="spawn" if config.num_workers else None,
        )
    )
    total = sum(len(frames.frames_of(episode)) for episode in folders)
    with tqdm(total=total, unit="frame", desc="labelling", disable=not show_progress) as progress:
        for episode, folder in folders.items():
            writer = EpisodeDepthWriter(
                folder, {keys[camera]: stored for camera, stored in storage.items()}, dataset.fps
            )
            for _, indices in batches[episode]:
                images = next(loader)
                writer.add(
                    {key: model.millimetres(images[camera], config.max_side) for camera, key in keys.items()}
                )
                progress.update(len(indices))
            writer.close()


def _batches(frames: range, size: int) -> list[range]:
    """Frames in order, `size` at a time."""
    return [frames[start : start + size] for start in range(0, len(frames), size)]


# -- the new dataset ----------------------------------------------------------------------------------------------------


def _write(
    config: LabelDepthConfig,
    source: Path,
    staging: Path,
    folders: dict[int, Path],
    storage: Mapping[str, str],
) -> list[LabelReport]:
    """Write the dataset inside of `staging` and move it to its place when complete."""
    settings = json.loads((staging / "settings.json").read_text())
    depth_type, partial = settings["depth_type"], staging / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    info = {"depth_unit": "mm", DEPTH_TYPE_KEY: depth_type, "depth_model": config.model.pretrained}
    with removed_on_error(partial):  # room for another try
        summaries = add_depth_features(source, partial, folders, storage, info)
    reports = [_report(key, depth_type, episodes) for key, episodes in summaries.items()]
    content = {"settings": settings, "cameras": [_on_disk(asdict(report)) for report in reports]}
    (partial / "depth_labels.json").write_text(json.dumps(content, indent=1))
    publish(partial, config.output.root, overwrite=config.overwrite)
    shutil.rmtree(staging)
    return reports


def _report(key: str, depth_type: str, episodes: Sequence[DepthSummary]) -> LabelReport:
    frames = [episode.frames for episode in episodes]
    stats = {name: [episode.stats[name] / 1000 for episode in episodes] for name in ("min", "q50", "max")}
    return LabelReport(
        key=key,
        depth_type=depth_type,
        frames=sum(frames),
        usable=float(np.average([episode.usable for episode in episodes], weights=frames)),
        nearest=min(stats["min"]),
        median=float(np.average(stats["q50"], weights=frames)),
        farthest=max(stats["max"]),
    )


def _on_disk(values: dict[str, Any]) -> dict[str, Any]:
    """What is written of a model or a report: `depth_type` has been called `kind` there since version 0.1.0."""
    return {"kind" if name == "depth_type" else name: value for name, value in values.items()}
